/* SPDX-License-Identifier: Apache-2.0
 *
 * The simulated world: two nodes that may each run the tenant's core, its one database, clients
 * that retry, and a nemesis. One thread, one heap of events, everything from the seed.
 *
 *   client --delay, loss--> node: core --batches, delay, stall, loss--> store
 *   client <--delay, loss-- node: core <--results---------------------- store
 *   nemesis: kill or stop a node, move the tenant, cut sessions, step the database's clock
 */
#ifndef DKT_SIM_WORLD_H
#define DKT_SIM_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/core/tenant.h"
#include "tests/sim/sim_store.h"

#define SIM_NODES   2
#define SIM_OPS_MAX 6000

typedef struct {
    uint64_t seed;
    uint32_t faults_every_ms; /* mean time between faults; 0: none */
    uint32_t ops_every_ms;
    uint32_t length_ms; /* of the part with faults; then everything heals */
    uint16_t resolvers;
    bool rebooking;
    uint32_t loss_permille; /* of messages between client and node */
    bool can_kill, can_stop, can_move, can_cut, can_stall, can_step;
    bool can_poison; /* some requests are refused by the database for a reason of its own */
    bool quiet; /* few requests, many of them just before a minute closes: slots are free there */
    uint32_t
        age_round_ms; /* what is old goes this often, kept for seconds instead of days; 0: never */
    uint32_t request_ids_ms, tickets_ms, journal_ms; /* kept so long */
    bool can_unlock; /* a lock may vanish under a living session, as in a failover of PostgreSQL */
} sim_options_t;

/* What the seed makes of the world; printed before a run. */
sim_options_t sim_options(uint64_t seed);

typedef struct {
    uint64_t steps, answers, created, refused, faults, activations;
    uint64_t trace; /* running hash of what happened: equal for equal seeds */
} sim_summary_t;

/* Runs one seed; false: `violation` says what may never happen. */
bool sim_run(const sim_options_t *options, sim_summary_t *summary, char *violation,
             size_t violation_bytes);

#endif
