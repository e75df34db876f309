/* SPDX-License-Identifier: Apache-2.0
 *
 * Bugs on purpose, to test the testers: the simulator builds the core with DKT_PLANT defined and
 * turns on one of these at a time; each must be found. In every other build DKT_PLANTED is the
 * constant 0.
 */
#ifndef DKT_CORE_PLANT_H
#define DKT_CORE_PLANT_H

#define DKT_PLANT_MAP(X)                                                                           \
    X(NONE, "no bug")                                                                              \
    X(ACK_BEFORE_SYNC, "created is answered when the group is sent, not when it is durable")       \
    X(NO_GUARD, "commits do not carry the epoch, so a replaced owner can write")                   \
    X(NO_LOCK, "an owner serves although somebody else holds the lock")                            \
    X(LOAD_MISSES_ROW, "one open ticket is forgotten at activation")                               \
    X(CANCEL_NOT_WRITTEN, "cancel frees the slot in memory and does not write it")                 \
    X(NO_LOOKUP, "every request_id is taken for a new one")                                        \
    X(REFUSED_IS_OK, "a group that the database refused counts as committed")                      \
    X(UNKNOWN_IS_OK, "a group without an answer counts as committed")                              \
    X(SWAPPED_ANSWERS, "two answers of one group are exchanged")                                   \
    X(NO_NOT_AFTER, "the guard does not watch the earliest slot of the group")                     \
    X(CLOCK_GOES_BACK, "activation ignores the last journal row's time")                           \
    X(PENDING_IGNORED, "what is not durable yet is not looked at before the database's row")       \
    X(NO_FENCE, "refusals leave without proof that this is still the owner")                       \
    X(RELEASED_IS_LOST, "a released hold can be allocated again")                                  \
    X(MOVE_NOT_WRITTEN, "rebooked tickets move in memory only")                                    \
    X(JOURNAL_GAP, "a cancelled ticket leaves no event")                                           \
    X(JOURNAL_RESTARTS, "the journal's numbers begin again with each activation")                  \
    X(CANCEL_AFTER_DISPATCH, "cancel takes back what has been dispatched")                         \
    X(HOLD_OUTLIVES, "an expired hold is allocated if its slot is free")                           \
    X(REFUSAL_FOR_EVER, "a refusal is remembered without end")                                     \
    X(JOINER_OTHER_TICKET, "a retry that joined hears of another ticket")                          \
    X(HANDOFF_EMPTY, "a handoff passes on no holds and says these are all")                        \
    X(LOOKUP_MIXED, "a look-up's row goes to another work")                                        \
    X(SUSPECTS_TOGETHER, "suspects are not decided alone")                                         \
    X(NONCE_REUSED, "hold numbers do not carry the epoch")                                         \
    X(AGE_TOO_EAGER, "request ids are dropped after half their time")                              \
    X(AGE_DROPS_NEWEST, "the newest ticket and journal row are dropped as any other")

typedef enum {
#define X(name, text) DKT_PLANT_##name,
    DKT_PLANT_MAP(X)
#undef X
        DKT_PLANT_COUNT
} dkt_plant_t;

#ifdef DKT_PLANT
extern dkt_plant_t dkt_plant;
#define DKT_PLANTED(name) (dkt_plant == DKT_PLANT_##name)
#else
#define DKT_PLANTED(name) 0
#endif

#endif
