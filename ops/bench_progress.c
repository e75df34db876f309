/* SPDX-License-Identifier: Apache-2.0
 *
 * What is under way, on stderr: a bar that is rewritten on a terminal, otherwise a line for each
 * scenario. See bench.h.
 */
#include <unistd.h>

#include "ops/bench.h"
#include "ops/result.h"

#define S_CELLS 24

void dkt_progress_open(dkt_suite_t *suite)
{
    suite->tty = isatty(STDERR_FILENO);
}

void dkt_progress(dkt_suite_t *suite, const char *what, int done, int all)
{
    char bar[S_CELLS + 1];
    if (!suite->tty) {
        return;
    }
    double share = suite->scenarios_done + (all > 0 ? (double)done / all : 0);
    int filled = (int)(share * S_CELLS / (suite->scenarios_asked > 0 ? suite->scenarios_asked : 1));
    for (int i = 0; i < S_CELLS; i++) {
        bar[i] = i < filled ? '#' : '.';
    }
    bar[S_CELLS] = '\0';
    int64_t seconds = (dkt_mono_ms() - suite->started_mono_ms) / 1000;
    fprintf(stderr, "\r\033[K[%s] %lld:%02lld %s %s", bar, (long long)(seconds / 60),
            (long long)(seconds % 60), dkt_scenarios[suite->scenario].id, what);
    if (all > 1) {
        fprintf(stderr, ", round %d of %d", done + 1, all);
    }
}

void dkt_progress_scenario(dkt_suite_t *suite, const dkt_outcome_t *ended)
{
    const dkt_scenario_t *scenario = &dkt_scenarios[suite->scenario];
    fprintf(stderr, "%s[%d/%d] %s %s: %s after %.1f s%s%s\n", suite->tty ? "\r\033[K" : "",
            suite->scenarios_done, suite->scenarios_asked, scenario->id, scenario->title,
            ended->ran ? "done" : "FAILED", ended->seconds, ended->error[0] ? ": " : "",
            ended->error);
}

void dkt_progress_close(dkt_suite_t *suite)
{
    if (suite->tty) {
        fprintf(stderr, "\r\033[K");
    }
}
