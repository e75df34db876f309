/* SPDX-License-Identifier: Apache-2.0
 *
 * Simulates one tenant under a stream of arrivals, once per policy and always with the same
 * arrivals, on the real ledger. Arrivals are Poisson; under the bursty load spells of two rates
 * alternate around the mean:
 *
 *   per minute   busy  _          _          _
 *   mean  - - - - - - | |- - - - | |- - - - | |
 *                calm_| |________| |________| |__
 *
 * The design tells its figures, but neither its bursts nor how long it ran. Both were fitted here:
 * several were tried and those kept that come near. So the bars beside the design's marks show that
 * its figures are possible, not that they were measured again; what is independent of the fit is
 * how the policies compare under the same arrivals, and that nothing is late.
 *
 * Tickets are dispatched when their minute comes and are resolved within it.
 */
#include "ops/bench_policy.h"

#include <getopt.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/core/ledger.h"

#define SEED_DEFAULT     1
#define BURSTY_MINUTES   20160    /* two weeks */
#define OVERLOAD_MINUTES 2880     /* two days: gold suffers once the queue has grown */
#define MINUTES_MAX      5256000  /* ten years: more is a slip of the finger */
#define EPOCH_MINUTE     29000000 /* simulated time starts in 2025 */
#define TICK_EARLY_MS    1000     /* a minute is dispatched this long before it starts */
#define CLASS_COUNT      3
#define PERCENT          100.0
#define DISPATCHED_MAX   DKT_RESOLVERS_MAX

/* How tickets arrive. */
typedef struct {
    const char *name, *short_name;
    uint16_t resolvers;
    double mean_per_minute; /* of all classes together */
    double busy_factor;     /* a busy spell's rate over the mean */
    double busy_minutes;    /* length of a busy spell; 0: no spells, plain Poisson */
    double calm_minutes;    /* length of a calm one; its rate makes up for the busy one */
    uint32_t minutes;       /* simulated unless --minutes says otherwise */
    double mix[CLASS_COUNT];
} s_load_t;

/* One bar group of the chart: a policy under a load, and what the design measured. */
typedef struct {
    const s_load_t *load;
    const char *policy;
    bool rebooking;
    uint16_t limits[CLASS_COUNT];
    double design_gold_percent;
    const char *design_moves;
} s_scenario_t;

typedef struct {
    uint64_t offered[CLASS_COUNT], accepted[CLASS_COUNT];
    uint64_t moves, dispatched, late, too_many_moves;
    double utilisation_percent;
} s_result_t;

/* What a run needs besides its result. */
typedef struct {
    dkt_ledger_t *ledger;
    uint64_t random;
    s_result_t result;
    uint32_t dispatched_count;
    uint64_t dispatched[DISPATCHED_MAX];
} s_sim_t;

typedef struct {
    uint64_t seed;
    uint32_t minutes; /* 0: each load's own */
    const char *svg_path;
    bool json;
} s_options_t;

static const char *const s_class_names[CLASS_COUNT] = {"gold", "silver", "bronze"};

static const s_load_t s_bursty = {"one resolver, bursty load, 1.0 a minute",
                                  "bursty 1.0x, 1 resolver",
                                  1,
                                  1.0,
                                  5.0,
                                  60.0,
                                  300.0,
                                  BURSTY_MINUTES,
                                  {0.2, 0.3, 0.5}};
static const s_load_t s_overload = {"ten resolvers, 1.4x overload",
                                    "overload 1.4x, 10 resolvers",
                                    10,
                                    14.0,
                                    1.0,
                                    0.0,
                                    0.0,
                                    OVERLOAD_MINUTES,
                                    {0.2, 0.3, 0.5}};

static const s_scenario_t s_scenarios[] = {
    {&s_bursty, "earliest", false, {1000, 1000, 1000}, 53.0, "-"},
    {&s_bursty, "rebooking", true, {1000, 1000, 1000}, 100.0, "0.12-0.17"},
    {&s_overload, "earliest", false, {1000, 1000, 1000}, 11.6, "-"},
    {&s_overload, "rebooking", true, {1000, 1000, 1000}, 39.8, "-"},
    {&s_overload, "limits 600/300", true, {1000, 600, 300}, 100.0, "-"},
};

#define SCENARIO_COUNT (sizeof s_scenarios / sizeof s_scenarios[0])

/* -- chance --------------------------------------------------------------------------------------
 */

static uint64_t s_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u); /* splitmix64 */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* In (0, 1]. */
static double s_uniform(uint64_t *state)
{
    return (double)((s_random(state) >> 11) + 1) / 9007199254740992.0;
}

static double s_exponential(uint64_t *state, double mean)
{
    return -log(s_uniform(state)) * mean;
}

static uint8_t s_draw_class(uint64_t *state, const double mix[CLASS_COUNT])
{
    double at = s_uniform(state);
    for (uint8_t i = 0; i + 1 < CLASS_COUNT; i++) {
        if (at <= mix[i]) {
            return i;
        }
        at -= mix[i];
    }
    return CLASS_COUNT - 1;
}

/* -- the simulation ------------------------------------------------------------------------------
 */

static void s_on_change(void *ctx, const dkt_change_t *change)
{
    s_sim_t *sim = ctx;
    if (change->kind != DKT_CHANGE_DISPATCHED || sim->dispatched_count == DISPATCHED_MAX) {
        return;
    }
    int64_t end_ms = ((int64_t)change->promise.place.minute + 1) * DKT_MINUTE_MS;
    sim->result.late += end_ms > change->promise.deadline_ms;
    sim->dispatched[sim->dispatched_count++] = change->promise.ticket;
}

/* The minute's tickets go out and are worked on; nothing of them is left to the ledger. */
static void s_run_minute(s_sim_t *sim, uint32_t minute)
{
    int64_t now_ms = (int64_t)minute * DKT_MINUTE_MS - TICK_EARLY_MS;
    sim->dispatched_count = 0;
    dkt_ledger_tick(sim->ledger, now_ms, minute, s_on_change, sim);
    for (uint32_t i = 0; i < sim->dispatched_count; i++) {
        sim->result.dispatched += dkt_ledger_resolve(sim->ledger, now_ms, sim->dispatched[i]);
    }
}

static void s_arrive(s_sim_t *sim, int64_t now_ms, uint8_t class_index, uint64_t ticket)
{
    dkt_place_t place;
    int64_t deadline_ms;
    dkt_moves_t moves = {0};
    dkt_verdict_t verdict =
        dkt_ledger_admit(sim->ledger, now_ms, class_index, ticket, &place, &deadline_ms, &moves);
    sim->result.offered[class_index]++;
    sim->result.too_many_moves += verdict == DKT_VERDICT_TOO_MANY_MOVES;
    if (verdict == DKT_VERDICT_YES) {
        sim->result.accepted[class_index]++;
        sim->result.moves += moves.count;
    }
}

/* Arrivals per minute in a spell. */
static double s_rate(const s_load_t *load, bool busy)
{
    double calm_share = 1.0 - (load->busy_factor - 1.0) * load->busy_minutes / load->calm_minutes;
    return load->mean_per_minute * (busy ? load->busy_factor : calm_share);
}

static void s_run(s_sim_t *sim, const s_load_t *load, uint32_t minutes)
{
    double start = (double)EPOCH_MINUTE, end = start + minutes;
    double at = start, spell_end = start;
    double rate = load->mean_per_minute;
    bool busy = true;
    uint32_t next_minute = EPOCH_MINUTE + 1;
    for (uint64_t ticket = 1; at < end; ticket++) {
        if (load->busy_minutes > 0 && at >= spell_end) {
            busy = !busy;
            spell_end = at + (busy ? load->busy_minutes : load->calm_minutes);
            rate = s_rate(load, busy);
        }
        at += s_exponential(&sim->random, 1.0 / rate);
        int64_t now_ms = (int64_t)(at * DKT_MINUTE_MS);
        uint8_t class_index = s_draw_class(&sim->random, load->mix);
        while (at < end && (int64_t)next_minute * DKT_MINUTE_MS - TICK_EARLY_MS <= now_ms) {
            s_run_minute(sim, next_minute++);
        }
        if (at < end) {
            s_arrive(sim, now_ms, class_index, ticket);
        }
    }
    double lanes = (double)load->resolvers * (next_minute - EPOCH_MINUTE - 1);
    sim->result.utilisation_percent = PERCENT * (double)sim->result.dispatched / lanes;
}

static uint32_t s_minutes(const s_load_t *load, const s_options_t *options)
{
    return options->minutes ? options->minutes : load->minutes;
}

static bool s_simulate(const s_scenario_t *scenario, const s_options_t *options, s_result_t *result)
{
    static s_sim_t sim;
    dkt_settings_t settings;
    dkt_err_t err = {0};
    dkt_settings_default(&settings, scenario->load->resolvers);
    settings.rebooking = scenario->rebooking;
    for (uint8_t i = 0; i < CLASS_COUNT; i++) {
        settings.classes[i].limit_permille = scenario->limits[i];
    }
    memset(&sim, 0, sizeof sim);
    sim.random = options->seed;
    if (dkt_settings_check(&settings, &err) != DKT_OK) {
        fprintf(stderr, "docket bench policy: %s\n", err.text);
        return false;
    }
    sim.ledger = dkt_ledger_new(&settings, (int64_t)EPOCH_MINUTE * DKT_MINUTE_MS);
    if (!sim.ledger) {
        fprintf(stderr, "docket bench policy: no memory\n");
        return false;
    }
    dkt_ledger_load_done(sim.ledger, (int64_t)EPOCH_MINUTE * DKT_MINUTE_MS, s_on_change, &sim);
    s_run(&sim, scenario->load, s_minutes(scenario->load, options));
    *result = sim.result;
    dkt_ledger_destroy(&sim.ledger);
    return true;
}

/* -- the answers ---------------------------------------------------------------------------------
 */

static double s_percent(const s_result_t *result, uint8_t class_index)
{
    uint64_t offered = result->offered[class_index];
    return offered ? PERCENT * (double)result->accepted[class_index] / (double)offered : 0.0;
}

static uint64_t s_accepted(const s_result_t *result)
{
    return result->accepted[0] + result->accepted[1] + result->accepted[2];
}

static double s_percent_all(const s_result_t *result)
{
    uint64_t offered = result->offered[0] + result->offered[1] + result->offered[2];
    return offered ? PERCENT * (double)s_accepted(result) / (double)offered : 0.0;
}

static double s_moves_per_admission(const s_result_t *result)
{
    uint64_t accepted = s_accepted(result);
    return accepted ? (double)result->moves / (double)accepted : 0.0;
}

static void s_print_table(const s_options_t *options, const s_result_t *results)
{
    const s_load_t *load = NULL;
    printf("Promises kept, by policy: seed %llu, mix 20/30/50, from an empty start\n",
           (unsigned long long)options->seed);
    for (size_t i = 0; i < SCENARIO_COUNT; i++) {
        const s_scenario_t *row = &s_scenarios[i];
        const s_result_t *got = &results[i];
        if (row->load != load) {
            load = row->load;
            printf(
                "\n%s, %u minutes\n  %-15s  gold accepted    silver  bronze     all    used  late  "
                "moves/admission\n  %-15s design   here\n",
                load->name, s_minutes(load, options), "policy", "");
        }
        printf(
            "  %-15s %5.1f%% %6.1f%%   %6.1f%% %6.1f%% %6.1f%% %6.1f%% %5llu  %.3f (design %s)\n",
            row->policy, row->design_gold_percent, s_percent(got, 0), s_percent(got, 1),
            s_percent(got, 2), s_percent_all(got), got->utilisation_percent,
            (unsigned long long)got->late, s_moves_per_admission(got), row->design_moves);
    }
    printf("\nused: share of the resolvers' minutes that did work.\n"
           "Bursts and default durations were fitted to the design's figures, which do not tell "
           "theirs.\n");
}

static void s_print_json(const s_options_t *options, const s_result_t *results)
{
    printf("{\"seed\":%llu,\"loads_fitted_to_design\":true,\"scenarios\":[",
           (unsigned long long)options->seed);
    for (size_t i = 0; i < SCENARIO_COUNT; i++) {
        const s_scenario_t *row = &s_scenarios[i];
        const s_result_t *got = &results[i];
        printf("%s\n "
               "{\"load\":\"%s\",\"minutes\":%u,\"resolvers\":%u,\"mean_per_minute\":%.1f,"
               "\"policy\":\"%s\","
               "\"design_gold_percent\":%.1f",
               i ? "," : "", row->load->name, s_minutes(row->load, options), row->load->resolvers,
               row->load->mean_per_minute, row->policy, row->design_gold_percent);
        for (uint8_t c = 0; c < CLASS_COUNT; c++) {
            printf(",\"%s_percent\":%.2f", s_class_names[c], s_percent(got, c));
        }
        printf(",\"all_percent\":%.2f,\"utilisation_percent\":%.2f,\"late\":%llu,"
               "\"moves_per_admission\":%.4f,\"too_many_moves\":%llu}",
               s_percent_all(got), got->utilisation_percent, (unsigned long long)got->late,
               s_moves_per_admission(got), (unsigned long long)got->too_many_moves);
    }
    printf("\n]}\n");
}

/* -- the chart -----------------------------------------------------------------------------------
 *
 *   100 % |  ##  ##      #: one bar for each class of a policy
 *         |  ##  ## ##   -: the design's figure for gold
 *       0 +-----------   one group for each policy, two loads side by side
 */

#define SVG_WIDTH        960
#define SVG_HEIGHT       520
#define SVG_LEFT         70 /* of the plot */
#define SVG_TOP          96
#define SVG_PLOT_WIDTH   860
#define SVG_PLOT_HEIGHT  320
#define SVG_BAR_WIDTH    38
#define SVG_BAR_GAP      4
#define SVG_GRID_PERCENT 20
#define SVG_LABEL_ABOVE  5  /* a bar's figure stands this far above it */
#define SVG_LABEL_HEIGHT 18 /* and clears the mark of the design by this */

static const char *const s_colors[CLASS_COUNT] = {"#d4a017", "#8c99a6", "#a5632a"};

static double s_svg_y(double percent)
{
    return SVG_TOP + SVG_PLOT_HEIGHT * (1.0 - percent / PERCENT);
}

static void s_svg_text(FILE *out, double x, double y, const char *attributes, const char *text)
{
    fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" %s>%s</text>\n", x, y, attributes, text);
}

static void s_svg_frame(FILE *out, const s_options_t *options, bool late)
{
    char text[160];
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
            "viewBox=\"0 0 %d %d\" font-family=\"Helvetica, Arial, sans-serif\" fill=\"#222\">\n"
            "<title>docket: accepted tickets by policy</title>\n"
            "<rect width=\"%d\" height=\"%d\" fill=\"#ffffff\"/>\n",
            SVG_WIDTH, SVG_HEIGHT, SVG_WIDTH, SVG_HEIGHT, SVG_WIDTH, SVG_HEIGHT);
    s_svg_text(out, SVG_LEFT, 34, "font-size=\"20\" font-weight=\"bold\"",
               "Accepted tickets by policy");
    snprintf(text, sizeof text,
             "Share of each class's arrivals (mix 20/30/50), simulated "
             "from an empty start, seed %llu; %s",
             (unsigned long long)options->seed,
             late ? "PROMISES WERE BROKEN" : "no accepted ticket was late");
    s_svg_text(out, SVG_LEFT, 56, "font-size=\"13\" fill=\"#555\"", text);
    for (int percent = 0; percent <= (int)PERCENT; percent += SVG_GRID_PERCENT) {
        double y = s_svg_y(percent);
        fprintf(out, "<line x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n",
                SVG_LEFT, SVG_LEFT + SVG_PLOT_WIDTH, y, y, percent ? "#e2e2e2" : "#444");
        snprintf(text, sizeof text, "%d %%", percent);
        s_svg_text(out, SVG_LEFT - 8, y + 4, "font-size=\"12\" text-anchor=\"end\"", text);
    }
    fprintf(out,
            "<text transform=\"translate(20 %d) rotate(-90)\" font-size=\"13\" "
            "text-anchor=\"middle\">accepted, %% of arrivals</text>\n",
            SVG_TOP + SVG_PLOT_HEIGHT / 2);
}

static void s_svg_legend(FILE *out)
{
    double x = SVG_LEFT, y = SVG_HEIGHT - 18;
    for (uint8_t i = 0; i < CLASS_COUNT; i++, x += 100) {
        fprintf(out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"14\" height=\"14\" fill=\"%s\"/>\n", x,
                y - 12, s_colors[i]);
        s_svg_text(out, x + 20, y, "font-size=\"13\"", s_class_names[i]);
    }
    fprintf(out,
            "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#c0182b\" "
            "stroke-width=\"3\"/>\n",
            x, x + 24, y - 5, y - 5);
    s_svg_text(out, x + 30, y, "font-size=\"13\"",
               "the design's figure for gold (bursts and durations were fitted to it)");
}

static void s_svg_group(FILE *out, const s_scenario_t *row, const s_result_t *got, double left)
{
    char text[32];
    double mark = s_svg_y(row->design_gold_percent);
    double x = left, span = CLASS_COUNT * (SVG_BAR_WIDTH + SVG_BAR_GAP) - SVG_BAR_GAP;
    for (uint8_t i = 0; i < CLASS_COUNT; i++, x += SVG_BAR_WIDTH + SVG_BAR_GAP) {
        double percent = s_percent(got, i), y = s_svg_y(percent);
        fprintf(out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%d\" height=\"%.1f\" fill=\"%s\"/>\n", x,
                y, SVG_BAR_WIDTH, s_svg_y(0) - y, s_colors[i]);
        snprintf(text, sizeof text, "%.1f", percent);
        double label = i == 0 && mark < y && mark > y - SVG_LABEL_HEIGHT ? mark : y;
        s_svg_text(out, x + SVG_BAR_WIDTH / 2.0, label - SVG_LABEL_ABOVE,
                   "font-size=\"11\" text-anchor=\"middle\"", text);
    }
    fprintf(out,
            "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#c0182b\" "
            "stroke-width=\"3\"/>\n",
            left - SVG_BAR_GAP, left + SVG_BAR_WIDTH + SVG_BAR_GAP, mark, mark);
    s_svg_text(out, left + span / 2, s_svg_y(0) + 20, "font-size=\"13\" text-anchor=\"middle\"",
               row->policy);
}

static bool s_write_svg(const s_options_t *options, const s_result_t *results, bool late)
{
    FILE *out = fopen(options->svg_path, "w");
    if (!out) {
        fprintf(stderr, "docket bench policy: cannot write %s: %m\n", options->svg_path);
        return false;
    }
    double pitch = (double)SVG_PLOT_WIDTH / SCENARIO_COUNT;
    double span = CLASS_COUNT * (SVG_BAR_WIDTH + SVG_BAR_GAP) - SVG_BAR_GAP;
    s_svg_frame(out, options, late);
    for (size_t i = 0, first = 0; i < SCENARIO_COUNT; i++) {
        s_svg_group(out, &s_scenarios[i], &results[i],
                    SVG_LEFT + pitch * (double)i + (pitch - span) / 2);
        if (i + 1 < SCENARIO_COUNT && s_scenarios[i + 1].load == s_scenarios[first].load) {
            continue;
        }
        double left = SVG_LEFT + pitch * (double)first, right = SVG_LEFT + pitch * (double)(i + 1);
        double y = s_svg_y(0) + 34;
        fprintf(out, "<path d=\"M%.1f %.1fV%.1fH%.1fV%.1f\" fill=\"none\" stroke=\"#999\"/>\n",
                left + 16, y - 5, y, right - 16, y - 5);
        char text[96];
        snprintf(text, sizeof text, "%s, %u minutes", s_scenarios[i].load->short_name,
                 s_minutes(s_scenarios[i].load, options));
        s_svg_text(out, (left + right) / 2, y + 20,
                   "font-size=\"14\" font-weight=\"bold\" text-anchor=\"middle\"", text);
        first = i + 1;
    }
    s_svg_legend(out);
    fprintf(out, "</svg>\n");
    bool written = !ferror(out);
    if (fclose(out) != 0 || !written) {
        fprintf(stderr, "docket bench policy: cannot write %s\n", options->svg_path);
        return false;
    }
    return true;
}

/* -- the command ---------------------------------------------------------------------------------
 */

static void s_usage(FILE *out)
{
    fprintf(out,
            "usage: docket bench policy [--seed N] [--minutes N] [--svg FILE] [--json]\n\n"
            "Simulates one tenant under the same arrivals with each admission policy and says how\n"
            "many tickets of each class were accepted, beside the figures of the design.\n\n"
            "  --seed N     of the arrivals (default %d)\n"
            "  --minutes N  simulated, 1 to %d (default %d bursty, %d overloaded)\n"
            "  --svg FILE   writes a bar chart\n"
            "  --json       the figures as JSON instead of a table\n\n"
            "Exit status: 0 done, 1 a promise was broken or the chart could not be written,\n"
            "2 wrong use.\n",
            SEED_DEFAULT, MINUTES_MAX, BURSTY_MINUTES, OVERLOAD_MINUTES);
}

static bool s_parse_number(const char *text, uint64_t max, uint64_t *number)
{
    char *end = NULL;
    *number = strtoull(text, &end, 10);
    return *text >= '0' && *text <= '9' && *end == '\0' && *number <= max;
}

/* -1: go on; otherwise the exit status. */
static int s_parse(int argc, char **argv, s_options_t *options)
{
    static const struct option longs[] = {
        {"seed", required_argument, NULL, 's'}, {"minutes", required_argument, NULL, 'm'},
        {"svg", required_argument, NULL, 'g'},  {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},       {NULL, 0, NULL, 0},
    };
    *options = (s_options_t){.seed = SEED_DEFAULT};
    uint64_t number = 0;
    int letter;
    optind = 0;
    while ((letter = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
        if (letter == 's' && s_parse_number(optarg, UINT64_MAX, &number)) {
            options->seed = number;
        } else if (letter == 'm' && s_parse_number(optarg, MINUTES_MAX, &number) && number > 0) {
            options->minutes = (uint32_t)number;
        } else if (letter == 'g') {
            options->svg_path = optarg;
        } else if (letter == 'j') {
            options->json = true;
        } else {
            s_usage(letter == 'h' ? stdout : stderr);
            return letter == 'h' ? 0 : 2;
        }
    }
    if (optind < argc) {
        s_usage(stderr);
        return 2;
    }
    return -1;
}

int dkt_bench_policy_main(int argc, char **argv)
{
    s_options_t options;
    s_result_t results[SCENARIO_COUNT];
    uint64_t late = 0;
    int status = s_parse(argc, argv, &options);
    if (status >= 0) {
        return status;
    }
    for (size_t i = 0; i < SCENARIO_COUNT; i++) {
        if (!s_simulate(&s_scenarios[i], &options, &results[i])) {
            return 1;
        }
        late += results[i].late;
    }
    if (options.json) {
        s_print_json(&options, results);
    } else {
        s_print_table(&options, results);
    }
    if (options.svg_path && !s_write_svg(&options, results, late > 0)) {
        return 1;
    }
    return late ? 1 : 0;
}
