/* SPDX-License-Identifier: Apache-2.0
 *
 * docket-sim: runs seeds of the simulated world, or plants a bug and looks how soon it is found.
 *   docket-sim --seeds N [--from S]        every seed must be clean; some run twice, traces equal
 *   docket-sim --planted [--seeds N]       the table of planted bugs; each must be found
 *   docket-sim --seed S [--plant NAME]     one seed, told
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/core/plant.h"
#include "tests/sim/sim_world.h"

#define SEEDS_DEFAULT   200
#define TWICE_EVERY     20
#define VIOLATION_BYTES 256

dkt_plant_t dkt_plant = DKT_PLANT_NONE;

static const struct {
    const char *name, *text;
} s_plants[DKT_PLANT_COUNT] = {
#define X(name, text) {#name, text},
    DKT_PLANT_MAP(X)
#undef X
};

static void s_print_options(const sim_options_t *o)
{
    printf("seed %llu: %u resolvers, rebooking %d, op every %u ms, fault every %u ms, loss %u/1000,"
           " kill %d stop %d move %d cut %d stall %d step %d poison %d unlock %d quiet %d, age "
           "every %u (%u) ms, %u ms\n",
           (unsigned long long)o->seed, o->resolvers, o->rebooking, o->ops_every_ms,
           o->faults_every_ms, o->loss_permille, o->can_kill, o->can_stop, o->can_move, o->can_cut,
           o->can_stall, o->can_step, o->can_poison, o->can_unlock, o->quiet, o->age_round_ms,
           o->request_ids_ms, o->length_ms);
}

static bool s_seed(uint64_t seed, sim_summary_t *summary, char *violation)
{
    sim_options_t options = sim_options(seed);
    return sim_run(&options, summary, violation, VIOLATION_BYTES);
}

static int s_run_one(uint64_t seed)
{
    char violation[VIOLATION_BYTES];
    sim_summary_t summary;
    sim_options_t options = sim_options(seed);
    s_print_options(&options);
    bool good = sim_run(&options, &summary, violation, sizeof violation);
    printf("%llu steps, %llu answers, %llu created, %llu refused, %llu faults, %llu activations,"
           " trace %016llx\n%s\n",
           (unsigned long long)summary.steps, (unsigned long long)summary.answers,
           (unsigned long long)summary.created, (unsigned long long)summary.refused,
           (unsigned long long)summary.faults, (unsigned long long)summary.activations,
           (unsigned long long)summary.trace, good ? "clean" : violation);
    return good ? 0 : 1;
}

static int s_run_many(uint64_t from, uint64_t seeds)
{
    sim_summary_t total = {0};
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (uint64_t seed = from; seed < from + seeds; seed++) {
        char violation[VIOLATION_BYTES];
        sim_summary_t summary, again;
        if (!s_seed(seed, &summary, violation)) {
            printf("seed %llu: %s\n", (unsigned long long)seed, violation);
            return 1;
        }
        if (seed % TWICE_EVERY == 0 &&
            (!s_seed(seed, &again, violation) || again.trace != summary.trace)) {
            printf("seed %llu: not the same twice\n", (unsigned long long)seed);
            return 1;
        }
        total.steps += summary.steps;
        total.created += summary.created;
        total.refused += summary.refused;
        total.faults += summary.faults;
        total.activations += summary.activations;
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%llu seeds clean: %llu steps, %llu created, %llu refused, %llu faults, %llu"
           " activations, %.1f s\n",
           (unsigned long long)seeds, (unsigned long long)total.steps,
           (unsigned long long)total.created, (unsigned long long)total.refused,
           (unsigned long long)total.faults, (unsigned long long)total.activations,
           (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9);
    return total.created > 0 && total.refused > 0 ? 0 : 1;
}

static int s_run_planted(uint64_t seeds)
{
    int missed = 0;
    printf("%-20s %8s  %s\n", "planted bug", "seed", "found as");
    for (int plant = DKT_PLANT_NONE + 1; plant < DKT_PLANT_COUNT; plant++) {
        char violation[VIOLATION_BYTES] = "not found";
        sim_summary_t summary;
        uint64_t seed = 1;
        dkt_plant = (dkt_plant_t)plant;
        while (seed <= seeds && s_seed(seed, &summary, violation)) {
            seed++;
        }
        missed += seed > seeds;
        printf("%-20s %8llu  %s\n", s_plants[plant].name, (unsigned long long)seed,
               seed > seeds ? "NOT FOUND" : violation);
        fflush(stdout);
    }
    printf("%d of %d planted bugs found\n", DKT_PLANT_COUNT - 1 - missed, DKT_PLANT_COUNT - 1);
    return missed ? 1 : 0;
}

static int s_usage(int status)
{
    fprintf(status ? stderr : stdout,
            "usage: docket-sim [--seeds N] [--from S] | --planted [--seeds N] | --seed S [--plant "
            "NAME]\nplanted bugs:\n");
    for (int plant = 1; plant < DKT_PLANT_COUNT; plant++) {
        fprintf(status ? stderr : stdout, "  %-20s %s\n", s_plants[plant].name,
                s_plants[plant].text);
    }
    return status;
}

static bool s_set_plant(const char *name)
{
    for (int plant = 0; plant < DKT_PLANT_COUNT; plant++) {
        if (strcmp(s_plants[plant].name, name) == 0) {
            dkt_plant = (dkt_plant_t)plant;
            return true;
        }
    }
    return false;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"seeds", required_argument, NULL, 'n'},
                                            {"from", required_argument, NULL, 'f'},
                                            {"seed", required_argument, NULL, 's'},
                                            {"plant", required_argument, NULL, 'p'},
                                            {"planted", no_argument, NULL, 't'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    uint64_t seeds = SEEDS_DEFAULT, from = 1, one = 0;
    bool planted = false;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case 'n':
            seeds = strtoull(optarg, NULL, 10);
            break;
        case 'f':
            from = strtoull(optarg, NULL, 10);
            break;
        case 's':
            one = strtoull(optarg, NULL, 10);
            break;
        case 'p':
            if (!s_set_plant(optarg)) {
                return s_usage(2);
            }
            break;
        case 't':
            planted = true;
            break;
        default:
            return s_usage(option == 'h' ? 0 : 2);
        }
    }
    return one ? s_run_one(one) : planted ? s_run_planted(seeds) : s_run_many(from, seeds);
}
