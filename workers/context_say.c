/* SPDX-License-Identifier: Apache-2.0
 *
 * The leader's voice: the stream DOCKET_CTX has the last message of each subject, so whoever comes
 * later finds all of it there. It is a projection of the control database: what may be missing in
 * it (another leader, another server, another store) is said again, all of it.
 */
#include <stdio.h>
#include <string.h>

#include "lib/edge/clock.h"
#include "lib/edge/log.h"
#include "workers/context_internal.h"

#define S_API_MS        500
#define S_SUBJECT_MAX   128
#define S_STREAM        "DOCKET_CTX"
#define S_STREAM_BYTES  INT64_C(268435456) /* 65536 records of at most 2 KiB, and tombstones */
#define S_OTHER_MAX     2                  /* subjects that are no tenant's: table, head */
#define S_SUBJECT_KEEP  1                  /* messages kept of a subject */
#define S_SUBJECT_TABLE "docket.ctx.table"
#define S_SUBJECT_HEAD  "docket.ctx.head"

static void s_subject(const dkt_context_news_t *news, char out[S_SUBJECT_MAX])
{
    dkt_id_text_t client;
    if (news->kind == DKT_CONTEXT_TABLE) {
        snprintf(out, S_SUBJECT_MAX, S_SUBJECT_TABLE);
        return;
    }
    dkt_client_text(&news->client, &client);
    snprintf(out, S_SUBJECT_MAX, "docket.ctx.%s", client.text);
}

static bool s_publish(dkt_context_thread_t *self, const dkt_context_news_t *news)
{
    uint8_t bytes[DKT_CONTEXT_NEWS_BYTES_MAX];
    char subject[S_SUBJECT_MAX];
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    s_subject(news, subject);
    dkt_context_put_news(&w, news);
    return !w.failed && dkt_bus_publish(self->env->bus, subject, bytes, w.len);
}

void dkt_context_say(dkt_context_thread_t *self, const dkt_context_news_t *news)
{
    if (self->env->bus && !s_publish(self, news)) {
        self->say_all = true;
    }
}

/* -- the stream -- */

static natsStatus s_make_stream(dkt_context_thread_t *self)
{
    const char *subjects[] = {"docket.ctx.>"};
    jsStreamConfig config;
    jsStreamConfig_Init(&config);
    config.Name = S_STREAM;
    config.Description = "Tenant context; the control database is the record";
    config.Subjects = subjects;
    config.SubjectsLen = 1;
    config.Storage = js_FileStorage;
    config.MaxMsgsPerSubject = S_SUBJECT_KEEP;
    config.MaxBytes = S_STREAM_BYTES;
    config.Discard = js_DiscardOld;
    config.AllowDirect = true;
    dkt_log(DKT_LOG_INFO, "making the stream " S_STREAM);
    return js_AddStream(NULL, self->js, &config, NULL, NULL);
}

static bool s_have_js(dkt_context_thread_t *self)
{
    jsOptions options;
    jsOptions_Init(&options);
    options.Wait = S_API_MS;
    return self->js || natsConnection_JetStream(&self->js, dkt_bus_connection(self->env->bus),
                                                &options) == NATS_OK;
}

/* Is it there, and does it have a message of every tenant? */
static bool s_check_stream(dkt_context_thread_t *self)
{
    jsStreamInfo *info = NULL;
    jsErrCode code = 0;
    dkt_context_info_t own;
    if (!s_have_js(self)) {
        return false;
    }
    natsStatus status = js_GetStreamInfo(&info, self->js, S_STREAM, NULL, &code);
    if (status == NATS_NOT_FOUND || code == JSStreamNotFoundErr) {
        self->say_all = true;
        return s_make_stream(self) == NATS_OK;
    }
    if (status != NATS_OK) {
        return false;
    }
    dkt_replica_info(self->env->replica, &own);
    self->say_all = self->say_all || info->State.Msgs < (uint64_t)own.records + S_OTHER_MAX;
    jsStreamInfo_Destroy(info);
    return true;
}

/* -- everything -- */

/* Copies record or table `index` out of the replica; false behind the last one. */
static bool s_copy(dkt_context_thread_t *self, uint32_t index, bool table, uint8_t *bytes,
                   dkt_context_news_t *news)
{
    dkt_context_info_t info;
    const dkt_context_t *context = dkt_replica_lock(self->env->replica);
    dkt_view_t view =
        table ? dkt_context_table_bytes(context) : dkt_context_bytes_at(context, index);
    dkt_context_info(context, &info);
    if (view.len > 0) {
        memcpy(bytes, view.data, view.len);
    }
    dkt_replica_unlock(self->env->replica);
    *news = (dkt_context_news_t){.kind = table ? DKT_CONTEXT_TABLE : DKT_CONTEXT_RECORD,
                                 .version = info.version,
                                 .prev = info.version.seq,
                                 .body = {.data = bytes, .len = view.len}};
    return view.len > 0;
}

static bool s_say_all(dkt_context_thread_t *self)
{
    uint8_t bytes[DKT_CONTEXT_TABLE_BYTES_MAX];
    dkt_context_news_t news;
    bool good = true;
    uint32_t index = 0;
    for (; good && s_copy(self, index, false, bytes, &news); index++) {
        dkt_context_record_t record;
        good = dkt_context_read_record(news.body.data, news.body.len, &record);
        news.client = record.client;
        good = good && s_publish(self, &news);
    }
    if (good && s_copy(self, 0, true, bytes, &news)) {
        good = s_publish(self, &news);
    }
    if (good) {
        dkt_log(DKT_LOG_INFO, "said all of the tenant context: %u tenants", index);
    }
    return good;
}

static bool s_say_head(dkt_context_thread_t *self)
{
    uint8_t bytes[DKT_CONTEXT_NEWS_BYTES_MAX];
    dkt_context_info_t info;
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    jsErrCode code = 0;
    dkt_replica_info(self->env->replica, &info);
    dkt_context_news_t head = {.kind = DKT_CONTEXT_HEAD,
                               .version = info.version,
                               .prev = info.version.seq,
                               .hash = info.hash,
                               .records = info.records};
    dkt_context_put_news(&w, &head);
    return !w.failed &&
           js_Publish(NULL, self->js, S_SUBJECT_HEAD, bytes, (int)w.len, NULL, &code) == NATS_OK;
}

void dkt_context_say_due(dkt_context_thread_t *self)
{
    int64_t now_mono_ms = dkt_clock_mono_ms();
    dkt_context_info_t info;
    dkt_replica_info(self->env->replica, &info);
    if (!self->env->bus || !dkt_bus_up(self->env->bus) || info.state != DKT_CONTEXT_CURRENT) {
        return;
    }
    bool swapped = info.swaps != self->swaps && info.hash != self->hash;
    bool anew = info.version.epoch != self->epoch || swapped ||
                dkt_bus_connects(self->env->bus) != self->connects;
    self->epoch = info.version.epoch;
    self->swaps = info.swaps;
    self->hash = info.hash;
    if (anew || now_mono_ms >= self->check_mono_ms) {
        self->connects = dkt_bus_connects(self->env->bus);
        self->say_all = self->say_all || anew;
        bool there = s_check_stream(self);
        self->check_mono_ms = now_mono_ms + (there ? DKT_CONTEXT_CHECK_MS : DKT_CONTEXT_HEAD_MS);
        self->say_all = self->say_all || !there;
    }
    if (self->say_all) {
        self->say_all = !s_say_all(self);
    }
    if (now_mono_ms >= self->head_mono_ms && s_have_js(self)) {
        self->head_mono_ms = now_mono_ms + DKT_CONTEXT_HEAD_MS;
        if (!s_say_head(self)) {
            self->check_mono_ms = 0; /* nobody keeps it: is there no stream? */
        }
    }
}

void dkt_context_say_fini(dkt_context_thread_t *self)
{
    jsCtx_Destroy(self->js);
    self->js = NULL;
}
