/* SPDX-License-Identifier: Apache-2.0
 *
 * Settings of a ledger: capacity, classes, policy; and the names of its answers.
 */
#include "lib/core/ledger.h"

#include <stdlib.h>
#include <string.h>

#include "lib/core/ledger_impl.h"

void dkt_settings_default(dkt_settings_t *settings, uint16_t resolvers)
{
    *settings = (dkt_settings_t){
        .resolvers = resolvers,
        .rebooking = true,
        .class_count = 3,
        .classes = {{"gold", 120, DKT_PERMILLE},
                    {"silver", 240, DKT_PERMILLE},
                    {"bronze", 480, DKT_PERMILLE}},
    };
}

static int s_compare_levels(const void *a, const void *b)
{
    const dkt_class_t *first = a;
    const dkt_class_t *second = b;
    if (first->level_minutes != second->level_minutes) {
        return first->level_minutes < second->level_minutes ? -1 : 1;
    }
    return strcmp(first->name, second->name);
}

static dkt_status_t s_check_class(const dkt_class_t *class, dkt_err_t *err)
{
    if (!memchr(class->name, 0, sizeof class->name) || !class->name[0]) {
        return dkt_fail(err, DKT_INVALID_ARGUMENT, "classes",
                        "a class needs a name of 1 to %d bytes", DKT_CLASS_NAME_BYTES_MAX);
    }
    if (class->level_minutes < DKT_LEVEL_MIN_MINUTES ||
        class->level_minutes > DKT_LEVEL_MAX_MINUTES) {
        return dkt_fail(err, DKT_INVALID_ARGUMENT, "classes", "class %s: the level is %d to %d min",
                        class->name, DKT_LEVEL_MIN_MINUTES, DKT_LEVEL_MAX_MINUTES);
    }
    if (class->limit_permille > DKT_PERMILLE) {
        return dkt_fail(err, DKT_INVALID_ARGUMENT, "limits",
                        "class %s: a limit is 0 to %d per mille", class->name, DKT_PERMILLE);
    }
    return DKT_OK;
}

dkt_status_t dkt_settings_check(dkt_settings_t *settings, dkt_err_t *err)
{
    if (settings->resolvers < 1 || settings->resolvers > DKT_RESOLVERS_MAX) {
        return dkt_fail(err, DKT_INVALID_ARGUMENT, "resolvers", "resolvers is 1 to %d",
                        DKT_RESOLVERS_MAX);
    }
    if (settings->class_count < 1 || settings->class_count > DKT_CLASSES_MAX) {
        return dkt_fail(err, DKT_INVALID_ARGUMENT, "classes", "there are 1 to %d classes",
                        DKT_CLASSES_MAX);
    }
    for (unsigned i = 0; i < settings->class_count; i++) {
        dkt_status_t status = s_check_class(&settings->classes[i], err);
        if (status != DKT_OK) {
            return status;
        }
    }
    qsort(settings->classes, settings->class_count, sizeof settings->classes[0], s_compare_levels);
    uint16_t tightest = DKT_PERMILLE;
    for (unsigned i = 0; i < settings->class_count; i++) {
        const dkt_class_t *class = &settings->classes[i];
        for (unsigned j = 0; j < i; j++) {
            if (strcmp(settings->classes[j].name, class->name) == 0) {
                return dkt_fail(err, DKT_INVALID_ARGUMENT, "classes", "class %s is given twice",
                                class->name);
            }
        }
        if (class->limit_permille<DKT_PERMILLE &&class->limit_permille> tightest) {
            return dkt_fail(err, DKT_INVALID_ARGUMENT, "limits",
                            "class %s: a limit must not grow with the level", class->name);
        }
        tightest = class->limit_permille < tightest ? class->limit_permille : tightest;
    }
    return DKT_OK;
}

int dkt_settings_class(const dkt_settings_t *settings, const char *name, uint32_t len)
{
    for (int i = 0; i < settings->class_count; i++) {
        const char *known = settings->classes[i].name;
        if (strlen(known) == len && memcmp(known, name, len) == 0) {
            return i;
        }
    }
    return -1;
}

bool dkt_li_limited(const dkt_settings_t *settings)
{
    for (unsigned i = 0; i < settings->class_count; i++) {
        if (settings->classes[i].limit_permille < DKT_PERMILLE) {
            return true;
        }
    }
    return false;
}

/* S_i(m): lanes that the classes from `index` on may book in all minutes before `minute`. Whole
 * numbers add up to the exact share over time, so one resolver's lanes are shared fairly too. */
static uint64_t s_share(const dkt_settings_t *settings, uint8_t index, uint64_t minute)
{
    uint64_t share = minute * settings->resolvers;
    uint64_t previous = DKT_PERMILLE;
    for (unsigned i = 0; i <= index; i++) {
        uint64_t permille = settings->classes[i].limit_permille;
        if (permille == DKT_PERMILLE) {
            continue;
        }
        if (permille == 0) {
            return 0;
        }
        share = share * permille / previous;
        previous = permille;
    }
    return share;
}

uint32_t dkt_li_allowed(const dkt_settings_t *settings, uint8_t index, uint32_t minute)
{
    return (uint32_t)(s_share(settings, index, (uint64_t)minute + 1) -
                      s_share(settings, index, minute));
}

const char *dkt_ticket_state_name(dkt_ticket_state_t state)
{
    static const char *const names[DKT_TICKET_STATE_COUNT] = {"open", "dispatched", "resolved",
                                                              "cancelled"};
    return (unsigned)state < DKT_TICKET_STATE_COUNT ? names[state] : "unknown";
}

const char *dkt_verdict_name(dkt_verdict_t verdict)
{
    static const char *const names[DKT_VERDICT_COUNT] = {"yes", "no_slot", "limit",
                                                         "too_many_moves"};
    return (unsigned)verdict < DKT_VERDICT_COUNT ? names[verdict] : "unknown";
}
