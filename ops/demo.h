/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside of `docket demo`, shared by demo*.c and view.c only.
 *
 *   demo.c        options and phases
 *   demo_setup.c  the companies and their accounts
 *   demo_load.c   the day: who asks for what, and what was answered
 *   demo_proof.c  every tenant's database against what was acknowledged
 *   view.c        the live view
 *
 * All runs in one thread; the two producers are polled together.
 */
#ifndef DKT_OPS_DEMO_H
#define DKT_OPS_DEMO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/core/limits.h"
#include "lib/docket.h"
#include "lib/core/histogram.h"
#include "ops/fleet.h"

#define DKT_DEMO_COMPANIES_MAX 1000
#define DKT_DEMO_CLASSES       3
#define DKT_DEMO_ACKS_MAX      2000000 /* what the proof can remember: 120 bytes each */
#define DKT_DEMO_RECENT        32      /* tickets of a company that later calls pick from */
#define DKT_DEMO_MINUTES       512     /* ring of minutes for the utilisation; above 8 h */

extern const char *const dkt_demo_classes[DKT_DEMO_CLASSES];

typedef struct {
    const char *data; /* as in dkt_fleet_options_t */
    int port;
    int seconds, companies;
    bool once;
} dkt_demo_options_t;

/* -- companies -------------------------------------------------------------------------------- */

typedef struct {
    const char *name; /* static */
    uint16_t resolvers;
    uint8_t mix[DKT_DEMO_CLASSES]; /* per cent gold, silver, bronze */
    double rate;                   /* arrivals per second on average */
    bool bursty;
    double burst_until_s, credit;
    char title[48];
    char client_id[DKT_ID_CHARS_MAX + 1], sub_domain[64], token[DKT_TOKEN_BYTES_MAX];
    uint64_t accepted, refused, cancelled, resolved, unknown;
    uint64_t accepted_by[DKT_DEMO_CLASSES], refused_by[DKT_DEMO_CLASSES];
    uint32_t recent[DKT_DEMO_RECENT];  /* indexes of acks */
    uint32_t recent_count;             /* ever; the ring keeps the last ones */
    uint16_t booked[DKT_DEMO_MINUTES]; /* as acknowledged; rebooking may have moved some */
} dkt_demo_company_t;

typedef enum {
    DKT_ACK_CREATED,
    DKT_ACK_CANCELLED,
    DKT_ACK_UNKNOWN, /* its cancel had no answer: either state is right */
} dkt_ack_state_t;

/* An acknowledged ticket. */
typedef struct {
    uint64_t number;
    int64_t slot_start_ms, deadline_ms;
    uint8_t request_id[16];
    char ticket_id[DKT_ID_CHARS_MAX + 1];
    uint16_t company;
    uint8_t class_index, state; /* dkt_ack_state_t */
    bool repeated;              /* acknowledged once more to a repeated request */
    bool held;                  /* made by allocate_slot */
} dkt_ack_t;

/* A ticket that was resolved. */
typedef struct {
    uint64_t number;
    uint16_t company;
} dkt_done_t;

#define DKT_DEMO_EXAMPLES 3
/* Of refusals, each of another company. */
typedef struct {
    uint16_t company;
    char text[240];
} dkt_demo_example_t;

/* -- the demo --------------------------------------------------------------------------------- */

typedef struct {
    dkt_demo_options_t options;
    dkt_fleet_t fleet;
    dkt_producer_t *producers[2]; /* public, internal */
    dkt_demo_company_t *companies;
    size_t company_count;
    dkt_ack_t *acks;
    size_t ack_count, ack_max;
    dkt_done_t *done;
    size_t done_count, done_max;
    uint64_t random;
    bool draining; /* answers are taken, nothing new is asked */
    /* what happened */
    uint64_t calls, answers, errors, silences, repeats, repeats_same, holds, allocated, released;
    uint64_t expired, too_late, skipped;
    uint64_t reasons[3]; /* of refusals, see dkt_demo_reasons */
    dkt_demo_example_t examples[DKT_DEMO_EXAMPLES];
    size_t example_count;
    char error_text[200]; /* the last error, for the proof's table */
    dkt_histogram_t latency;
    /* the view */
    int64_t started_ms, drawn_ms;
    uint64_t drawn_answers;
    double answers_per_s;
    bool tty, utf8;
} dkt_demo_t;

extern const char *const dkt_demo_reasons[3];

/* True once a signal asked for the end. */
bool dkt_demo_stopped(void);
uint64_t dkt_demo_random(dkt_demo_t *self, uint64_t below);

bool dkt_demo_setup(dkt_demo_t *self);
bool dkt_demo_day(dkt_demo_t *self);
/* Prints the result lines; true if all passed. */
bool dkt_demo_proof(dkt_demo_t *self);

/* The number inside a ticket id, 0 if it is none. */
uint64_t dkt_demo_ticket_number(dkt_text_t ticket_id);

/* -- the view --------------------------------------------------------------------------------- */

void dkt_view_open(dkt_demo_t *self);
/* Draws if it is time to; `force` draws now. */
void dkt_view_draw(dkt_demo_t *self, bool force);
void dkt_view_close(dkt_demo_t *self);
/* "[#####.....] label" on one line, rewritten on a terminal. */
void dkt_view_progress(const dkt_demo_t *self, const char *label, size_t done, size_t all);
/* A bar of `cells` cells; out takes cells * 3 + 1 bytes. */
void dkt_view_bar(bool utf8, double share, size_t cells, char *out);

#endif
