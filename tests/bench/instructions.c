/* SPDX-License-Identifier: Apache-2.0
 *
 * Drives the chain through the scenarios whose instructions are counted. Run by tests/bench/count
 * under valgrind's callgrind, which counts only between the switches in s_drive; without valgrind
 * the program just checks that every request of every scenario gets the answer it should.
 *
 *   bench_instructions          every scenario
 *   bench_instructions NAME..   these
 *   bench_instructions --list   name and number of counted requests of each
 *
 * A round is up to three calls for the same slots: what must be there before (not counted), what is
 * counted, and what puts everything back (not counted), so that a round finds what the one before
 * it found. Growing is shown by scenarios, never by rounds. Where no call is counted, the relay's
 * work is: the events of the call before as the messages that are published.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <sodium.h>
#include <valgrind/callgrind.h>

#include "tests/bench/chain.h"

#define S_WARM_ROUNDS 2 /* not counted: buffers reach their size, tokens are verified */
#define S_SUBJECT     "printer on floor 3 is on fire"
#define S_NONE        DKT_METHOD_COUNT

typedef struct {
    const char *name;
    chain_config_t config;
    uint32_t hit, each; /* tenants of a round, requests to each of them */
    uint32_t rounds;
    dkt_method_t before, counted, after; /* counted: S_NONE counts the relay */
    const char *type;
    const char *status; /* of the counted answers; NULL: has none */
    bool again;         /* the counted requests bear the request ids of those before */
} s_scenario_t;

#define S_FULL_MINUTES 479 /* slots that one resolver can promise to bronze at once */
#define S_CREATE       S_NONE, DKT_METHOD_CREATE_TICKET, DKT_METHOD_CANCEL_TICKET
#define S_CANCEL       DKT_METHOD_CREATE_TICKET, DKT_METHOD_CANCEL_TICKET, S_NONE
#define S_REFUSE       S_NONE, DKT_METHOD_CREATE_TICKET, S_NONE
#define S_VALIDATE     S_NONE, DKT_METHOD_VALIDATE_ETA, DKT_METHOD_RELEASE_SLOT
#define S_RELEASE      DKT_METHOD_VALIDATE_ETA, DKT_METHOD_RELEASE_SLOT, S_NONE
#define S_ALLOCATE     DKT_METHOD_VALIDATE_ETA, DKT_METHOD_ALLOCATE_SLOT, DKT_METHOD_CANCEL_TICKET
#define S_REPLAY       DKT_METHOD_CREATE_TICKET, DKT_METHOD_CREATE_TICKET, DKT_METHOD_CANCEL_TICKET
#define S_EVENTS       DKT_METHOD_CREATE_TICKET, S_NONE, DKT_METHOD_CANCEL_TICKET
#define S_GET          DKT_METHOD_CREATE_TICKET, DKT_METHOD_GET_TICKET, DKT_METHOD_CANCEL_TICKET
#define S_AVAILABLE    S_NONE, DKT_METHOD_AVAILABILITY, S_NONE
#define S_ANEW         DKT_METHOD_CREATE_TICKET, DKT_METHOD_AVAILABILITY, DKT_METHOD_CANCEL_TICKET

/* The count of tenants grows with 16 requests for each of ten tenants in a round; everything else
 * is one tenant with 256 in a round, or one request alone. */
static const s_scenario_t s_scenarios[] = {
    {"create tenants=10", {10, 1, 10}, 10, 16, 10, S_CREATE, "bronze", "created", false},
    {"create tenants=100", {100, 1, 10}, 10, 16, 10, S_CREATE, "bronze", "created", false},
    {"create tenants=1000", {1000, 1, 10}, 10, 16, 10, S_CREATE, "bronze", "created", false},
    {"create", {1, 1, 10}, 1, 256, 6, S_CREATE, "bronze", "created", false},
    {"create resolvers=1000", {1, 1000, 10}, 1, 256, 6, S_CREATE, "bronze", "created", false},
    {"create open=400000", {1, 1000, 400000}, 1, 256, 6, S_CREATE, "bronze", "created", false},
    {"create alone", {10, 1, 10}, 1, 1, 200, S_CREATE, "bronze", "created", false},
    {"create alone tenants=1000", {1000, 1, 10}, 1, 1, 200, S_CREATE, "bronze", "created", false},
    {"replay", {1, 1, 10}, 1, 256, 6, S_REPLAY, "bronze", "created", true},
    {"cancel", {1, 1, 10}, 1, 256, 6, S_CANCEL, "bronze", "cancelled", false},
    {"cancel open=400000", {1, 1000, 400000}, 1, 256, 6, S_CANCEL, "bronze", "cancelled", false},
    {"refuse", {1, 1, S_FULL_MINUTES}, 1, 256, 6, S_REFUSE, "bronze", "refused", false},
    {"refuse resolvers=1000",
     {1, 1000, S_FULL_MINUTES * 1000},
     1,
     256,
     6,
     S_REFUSE,
     "bronze",
     "refused",
     false},
    {"refuse alone", {10, 1, S_FULL_MINUTES}, 1, 1, 200, S_REFUSE, "bronze", "refused", false},
    {"validate_eta", {1, 1, 10}, 1, 256, 6, S_VALIDATE, "bronze", "held", false},
    {"validate_eta resolvers=1000", {1, 1000, 10}, 1, 256, 6, S_VALIDATE, "bronze", "held", false},
    {"release_slot", {1, 1, 10}, 1, 256, 6, S_RELEASE, "bronze", "released", false},
    {"allocate_slot", {1, 1, 10}, 1, 256, 6, S_ALLOCATE, "bronze", "created", false},
    {"availability", {1, 1, 10}, 1, 256, 6, S_AVAILABLE, NULL, NULL, false},
    {"availability open=0", {1, 1, 0}, 1, 256, 6, S_AVAILABLE, NULL, NULL, false},
    {"availability open=400000", {1, 1000, 400000}, 1, 256, 6, S_AVAILABLE, NULL, NULL, false},
    {"availability changed", {1, 1, 10}, 1, 1, 20, S_ANEW, "bronze", NULL, false},
    {"availability changed open=400000",
     {1, 1000, 400000},
     1,
     1,
     20,
     S_ANEW,
     "bronze",
     NULL,
     false},
    {"events", {1, 1, 10}, 1, 256, 6, S_EVENTS, "bronze", NULL, false},
    {"events alone", {10, 1, 10}, 1, 1, 200, S_EVENTS, "bronze", NULL, false},
    {"get_ticket", {1, 1, 10}, 1, 256, 6, S_GET, "bronze", NULL, false},
    {"get_ticket open=400000", {1, 1000, 400000}, 1, 256, 6, S_GET, "bronze", NULL, false},
};
#define S_COUNT (sizeof s_scenarios / sizeof s_scenarios[0])

/* What a slot of the round has, kept from one call to the next. */
static struct {
    dkt_uuid_t request_id;
    char ticket_id[DKT_ID_CHARS_MAX + 1];
    char slot_id[DKT_ID_CHARS_MAX + 1];
} s_kept[CHAIN_REQUESTS_MAX];

static uint64_t s_request_count; /* makes request ids that grow */

static dkt_view_t s_text(const char *text)
{
    return (dkt_view_t){(const uint8_t *)text, (uint32_t)strlen(text)};
}

static uint32_t s_tenant(const s_scenario_t *scenario, uint32_t round, uint32_t slot)
{
    return (round * scenario->hit + slot / scenario->each) % scenario->config.tenants;
}

static dkt_uuid_t s_new_id(void)
{
    uint8_t random[10] = {0};
    s_request_count++;
    for (int i = 0; i < 8; i++) {
        random[2 + i] = (uint8_t)(s_request_count >> (56 - 8 * i));
    }
    return dkt_uuid_v7(chain->db_ms, random);
}

static void s_fill(const s_scenario_t *scenario, uint32_t round, uint32_t slot, dkt_method_t method,
                   bool fresh)
{
    const dkt_method_row_t *row = dkt_method_row(method);
    const chain_tenant_t *tenant = &chain->tenants[s_tenant(scenario, round, slot)];
    bool is_public = row->audience == DKT_AUDIENCE_PUBLIC;
    bool creates = method == DKT_METHOD_CREATE_TICKET || method == DKT_METHOD_ALLOCATE_SLOT;
    if (fresh) {
        s_kept[slot].request_id = s_new_id();
    }
    dkt_request_t request = {.msgid = slot,
                             .method = method,
                             .token = s_text(tenant->token),
                             .client_id = s_text(tenant->client_id),
                             .ticket_type = s_text(scenario->type ? scenario->type : ""),
                             .ticket_id = s_text(s_kept[slot].ticket_id),
                             .slot_id = s_text(s_kept[slot].slot_id),
                             .subject = s_text(S_SUBJECT),
                             .request_id = s_kept[slot].request_id};
    request.present = row->required | (is_public ? DKT_PARAM_BIT(TOKEN) : 0) |
                      (row->request_id ? DKT_PARAM_BIT(REQUEST_ID) : 0) |
                      (creates ? DKT_PARAM_BIT(SUBJECT) : 0);
    dkt_w_t w = dkt_w_init(chain->slots[slot].frame, CHAIN_FRAME_BYTES);
    dkt_request_encode(&w, &request);
    assert(!w.failed);
    chain->slots[slot].frame_len = (uint32_t)w.len;
}

static void s_keep(char out[DKT_ID_CHARS_MAX + 1], dkt_view_t id)
{
    if (id.data) {
        memcpy(out, id.data, id.len);
        out[id.len] = '\0';
    }
}

static void s_read_answers(const s_scenario_t *scenario, dkt_method_t method, uint32_t count)
{
    const char *status = method == scenario->counted ? scenario->status : NULL;
    if (chain->answered != count) {
        fprintf(stderr, "%s: %u answers to %u requests\n", scenario->name, chain->answered, count);
        exit(1);
    }
    for (uint32_t i = 0; i < count; i++) {
        dkt_answer_t answer;
        dkt_err_t err;
        const chain_slot_t *slot = &chain->slots[i];
        bool good = dkt_answer_decode(slot->answer, slot->answer_len, &answer, &err) == DKT_OK &&
                    answer.status == DKT_OK && answer.msgid < count;
        if (!good || (status && (answer.status_text.len != strlen(status) ||
                                 memcmp(answer.status_text.data, status, strlen(status)) != 0))) {
            fprintf(stderr, "%s: %s was answered %.*s %.*s\n", scenario->name,
                    dkt_method_row(method)->name, (int)answer.message.len,
                    (const char *)answer.message.data, (int)answer.status_text.len,
                    (const char *)answer.status_text.data);
            exit(1);
        }
        s_keep(s_kept[answer.msgid].ticket_id, answer.ticket_id);
        s_keep(s_kept[answer.msgid].slot_id, answer.slot_id);
    }
}

/* One call of a round: all its requests there and all answers back. */
static void s_drive(const s_scenario_t *scenario, uint32_t round, dkt_method_t method, bool fresh,
                    bool counted)
{
    uint32_t count = scenario->hit * scenario->each;
    dkt_audience_t side = dkt_method_row(method)->audience;
    for (uint32_t i = 0; i < count; i++) {
        s_fill(scenario, round, i, method, fresh);
    }
    chain->answered = 0;
    if (counted) {
        CALLGRIND_TOGGLE_COLLECT;
    }
    for (uint32_t i = 0; i < scenario->hit; i++) {
        uint32_t first = i * scenario->each;
        chain_send(s_tenant(scenario, round, first), side, first, scenario->each);
    }
    chain_broker_out();
    chain_node_in();
    chain_actors();
    chain_node_out();
    chain_broker_in();
    if (counted) {
        CALLGRIND_TOGGLE_COLLECT;
    }
    s_read_answers(scenario, method, count);
}

/* The events of the last call, as the relay makes messages of them. */
static void s_publish(const s_scenario_t *scenario, bool counted)
{
    if (counted) {
        CALLGRIND_TOGGLE_COLLECT;
    }
    uint32_t events = chain_publish();
    if (counted) {
        CALLGRIND_TOGGLE_COLLECT;
    }
    if (events != scenario->hit * scenario->each) {
        fprintf(stderr, "%s: %u events were published\n", scenario->name, events);
        exit(1);
    }
}

static void s_round(const s_scenario_t *scenario, uint32_t round, bool counted)
{
    if (scenario->before != S_NONE) {
        s_drive(scenario, round, scenario->before, true, false);
    }
    if (scenario->counted == S_NONE) {
        s_publish(scenario, counted);
    } else {
        chain_empty_relay();
        s_drive(scenario, round, scenario->counted, !scenario->again, counted);
    }
    chain_empty_relay();
    if (scenario->after != S_NONE) {
        s_drive(scenario, round, scenario->after, true, false);
        chain_empty_relay();
    }
}

static void s_run(const s_scenario_t *scenario)
{
    chain_new(&scenario->config);
    uint32_t warm = S_WARM_ROUNDS * (scenario->config.tenants + scenario->hit - 1) / scenario->hit;
    for (uint32_t i = 0; i < warm; i++) {
        s_round(scenario, i, false);
    }
    CALLGRIND_START_INSTRUMENTATION;
    for (uint32_t i = 0; i < scenario->rounds; i++) {
        s_round(scenario, warm + i, true);
    }
    CALLGRIND_DUMP_STATS_AT(scenario->name);
    CALLGRIND_STOP_INSTRUMENTATION;
    chain_destroy();
}

/* A thousand tenants have a thousand mailboxes, each a descriptor. */
static void s_raise_files(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
}

int main(int argc, char **argv)
{
    s_raise_files();
    if (sodium_init() < 0) {
        return 1;
    }
    for (size_t i = 0; i < S_COUNT; i++) {
        const s_scenario_t *scenario = &s_scenarios[i];
        bool wanted = argc == 1;
        for (int j = 1; j < argc; j++) {
            wanted = wanted || strcmp(argv[j], scenario->name) == 0;
        }
        if (argc == 2 && strcmp(argv[1], "--list") == 0) {
            printf("%s\t%u\n", scenario->name, scenario->rounds * scenario->hit * scenario->each);
        } else if (wanted) {
            s_run(scenario);
        }
    }
    return 0;
}
