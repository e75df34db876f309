/* SPDX-License-Identifier: Apache-2.0
 *
 * The write cursor (msgpack-c's packer over a caller's buffer) and the answers.
 */
#include "lib/core/proto.h"

#include <msgpack.h>
#include <string.h>

#include "lib/core/proto_mp.h"
#include "lib/core/proto_params.h"

#define S_ANSWER_ELEMENTS 4 /* [1, msgid, error, result] */
#define S_ANSWER_TYPE     1

/* -- cursor ------------------------------------------------------------------------------------ */

static int s_write(void *cursor, const char *bytes, size_t len)
{
    dkt_w_t *w = cursor;
    if (w->failed || len > w->max - w->len) {
        w->failed = true;
        return -1;
    }
    if (len) {
        memcpy(w->data + w->len, bytes, len);
    }
    w->len += len;
    return 0;
}

static msgpack_packer s_packer(dkt_w_t *w)
{
    return (msgpack_packer){.data = w, .callback = s_write};
}

void dkt_w_nil(dkt_w_t *w)
{
    msgpack_packer packer = s_packer(w);
    msgpack_pack_nil(&packer);
}

void dkt_w_bool(dkt_w_t *w, bool value)
{
    msgpack_packer packer = s_packer(w);
    if (value) {
        msgpack_pack_true(&packer);
    } else {
        msgpack_pack_false(&packer);
    }
}

void dkt_w_int(dkt_w_t *w, int64_t value)
{
    msgpack_packer packer = s_packer(w);
    msgpack_pack_int64(&packer, value);
}

void dkt_w_uint(dkt_w_t *w, uint64_t value)
{
    msgpack_packer packer = s_packer(w);
    msgpack_pack_uint64(&packer, value);
}

void dkt_w_str(dkt_w_t *w, const char *text, size_t len)
{
    msgpack_packer packer = s_packer(w);
    msgpack_pack_str(&packer, len);
    msgpack_pack_str_body(&packer, text, len);
}

void dkt_w_bin(dkt_w_t *w, const uint8_t *bytes, size_t len)
{
    msgpack_packer packer = s_packer(w);
    msgpack_pack_bin(&packer, len);
    msgpack_pack_bin_body(&packer, bytes, len);
}

void dkt_w_array(dkt_w_t *w, uint32_t count)
{
    msgpack_packer packer = s_packer(w);
    msgpack_pack_array(&packer, count);
}

void dkt_w_map(dkt_w_t *w, uint32_t count)
{
    msgpack_packer packer = s_packer(w);
    msgpack_pack_map(&packer, count);
}

/* -- answers ----------------------------------------------------------------------------------- */

static inline void s_put_text(dkt_w_t *w, const char *key, const char *value)
{
    dkt_w_cstr(w, key);
    dkt_w_cstr(w, value);
}

static inline void s_put_int(dkt_w_t *w, const char *key, int64_t value)
{
    dkt_w_cstr(w, key);
    dkt_w_int(w, value);
}

static void s_put_bool(dkt_w_t *w, const char *key, bool value)
{
    dkt_w_cstr(w, key);
    dkt_w_bool(w, value);
}

/* A sentence may quote a peer and may have been cut within a character: the longest part of it
 * that is text goes out. */
static void s_put_sentence(dkt_w_t *w, const char *key, const char *text)
{
    size_t len = strlen(text);
    while (len && !dkt_utf8_check((const uint8_t *)text, len)) {
        len--;
    }
    dkt_w_cstr(w, key);
    dkt_w_str(w, text, len);
}

void dkt_answer_begin(dkt_w_t *w, uint32_t msgid, uint32_t pairs)
{
    dkt_w_array(w, S_ANSWER_ELEMENTS);
    dkt_w_uint(w, S_ANSWER_TYPE);
    dkt_w_uint(w, msgid);
    dkt_w_nil(w);
    dkt_w_map(w, pairs);
}

void dkt_answer_error(dkt_w_t *w, uint32_t msgid, const dkt_err_t *err)
{
    dkt_w_array(w, S_ANSWER_ELEMENTS);
    dkt_w_uint(w, S_ANSWER_TYPE);
    dkt_w_uint(w, msgid);
    dkt_w_map(w, 2u + (err->retry_after_ms != 0) + (err->field[0] != '\0'));
    s_put_text(w, "code", dkt_status_code(err->status));
    s_put_sentence(w, "message", err->text);
    if (err->retry_after_ms) {
        s_put_int(w, "retry_after_ms", err->retry_after_ms);
    }
    if (err->field[0]) {
        s_put_text(w, "field", err->field);
    }
    dkt_w_nil(w);
}

void dkt_answer_status(dkt_w_t *w, uint32_t msgid, const char *status)
{
    dkt_answer_begin(w, msgid, 1);
    s_put_text(w, "status", status);
}

void dkt_answer_created(dkt_w_t *w, uint32_t msgid, const dkt_answer_created_t *answer)
{
    dkt_answer_begin(w, msgid, 5u + answer->replayed);
    s_put_text(w, "status", "created");
    s_put_text(w, "ticket_id", answer->ticket_id);
    s_put_text(w, "slot_id", answer->slot_id);
    s_put_int(w, "slot_start_ms", answer->slot_start_ms);
    s_put_int(w, "deadline_ms", answer->deadline_ms);
    if (answer->replayed) {
        s_put_bool(w, "replayed", true);
    }
}

void dkt_answer_refused(dkt_w_t *w, uint32_t msgid, const dkt_answer_refused_t *answer)
{
    dkt_answer_begin(w, msgid, 3u + answer->has_earliest + answer->replayed);
    s_put_text(w, "status", "refused");
    s_put_text(w, "reason", answer->reason);
    if (answer->has_earliest) {
        s_put_int(w, "earliest_ms", answer->earliest_ms);
    }
    dkt_w_cstr(w, "alternatives");
    dkt_w_array(w, answer->alternative_count);
    for (uint32_t i = 0; i < answer->alternative_count; i++) {
        const dkt_alternative_t *alternative = &answer->alternatives[i];
        dkt_w_map(w, 3);
        s_put_text(w, "ticket_type", alternative->ticket_type);
        s_put_int(w, "slot_start_ms", alternative->slot_start_ms);
        s_put_int(w, "deadline_ms", alternative->deadline_ms);
    }
    if (answer->replayed) {
        s_put_bool(w, "replayed", true);
    }
}

void dkt_answer_held(dkt_w_t *w, uint32_t msgid, const dkt_answer_held_t *answer)
{
    dkt_answer_begin(w, msgid, 4);
    s_put_text(w, "status", "held");
    s_put_text(w, "slot_id", answer->slot_id);
    s_put_int(w, "slot_start_ms", answer->slot_start_ms);
    s_put_int(w, "hold_expires_ms", answer->hold_expires_ms);
}

static uint32_t s_ticket_pairs(const dkt_answer_ticket_t *ticket)
{
    return 8u + (ticket->subject.data != NULL) + (ticket->payload.data != NULL) +
           (ticket->dispatched_ms != 0) + (ticket->resolved_ms != 0) + (ticket->cancelled_ms != 0);
}

static void s_put_time(dkt_w_t *w, const char *key, int64_t time_ms)
{
    if (time_ms) {
        s_put_int(w, key, time_ms);
    }
}

void dkt_answer_ticket_map(dkt_w_t *w, const dkt_answer_ticket_t *ticket)
{
    dkt_w_map(w, s_ticket_pairs(ticket));
    s_put_text(w, "ticket_id", ticket->ticket_id);
    s_put_text(w, "ticket_type", ticket->ticket_type);
    s_put_text(w, "state", dkt_state_wire(ticket->state));
    s_put_int(w, "slot_start_ms", ticket->slot_start_ms);
    s_put_int(w, "deadline_ms", ticket->deadline_ms);
    s_put_int(w, "created_ms", ticket->created_ms);
    s_put_bool(w, "breached", ticket->breached);
    s_put_bool(w, "at_risk", ticket->at_risk);
    if (ticket->subject.data) {
        dkt_w_cstr(w, "subject");
        dkt_w_str(w, (const char *)ticket->subject.data, ticket->subject.len);
    }
    if (ticket->payload.data) {
        dkt_w_cstr(w, "payload");
        dkt_w_bin(w, ticket->payload.data, ticket->payload.len);
    }
    s_put_time(w, "dispatched_ms", ticket->dispatched_ms);
    s_put_time(w, "resolved_ms", ticket->resolved_ms);
    s_put_time(w, "cancelled_ms", ticket->cancelled_ms);
}
