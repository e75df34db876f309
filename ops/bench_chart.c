/* SPDX-License-Identifier: Apache-2.0
 *
 * The goals as a picture, see bench.h: a bar for each, as long as the share of the goal that was
 * reached. Readable on a light and on a dark page.
 *
 *      P1  one tenant / the function's best   ########|###   14.1 x  >= 12
 *      P4  create_ticket / (chain + commit)   #####   |       1.52 x <= 1.15
 *                                                     goal
 */
#include <math.h>
#include <string.h>

#include "ops/bench.h"

#define S_WIDTH      1000
#define S_TOP        76
#define S_ROW        22
#define S_BAR        13
#define S_BAR_LEFT   400
#define S_BAR_WIDTH  360
#define S_BOTTOM     34
#define S_SHARE_MAX  2.0 /* of the goal; longer bars are cut, their figure tells */
#define S_TEXT_LIFT  11  /* of a text's base line in its row */
#define S_ID_LEFT    16
#define S_NAME_LEFT  56
#define S_VALUE_LEFT 776

static const char s_style[] =
    "<style>text{font-family:Helvetica,Arial,sans-serif;font-size:12px;fill:#1f2328}"
    ".h{font-size:17px;font-weight:bold}.s{fill:#59636e}.met{fill:#1a7f37}.missed{fill:#bc4c00}"
    ".goal{stroke:#59636e}.back{fill:#ffffff}"
    "@media (prefers-color-scheme:dark){text{fill:#f0f6fc}.s{fill:#9198a1}.met{fill:#3fb950}"
    ".missed{fill:#db6d28}.goal{stroke:#9198a1}.back{fill:#0d1117}}</style>\n";

static int s_goal_count(const dkt_suite_t *suite)
{
    int count = 0;
    for (int i = 0; i < DKT_BENCH_SCENARIOS; i++) {
        count += suite->outcomes[i].goal_count;
    }
    return count;
}

/* Names hold comparisons and may hold what XML keeps for itself. */
static void s_text(FILE *out, double x, double y, const char *class, const char *text)
{
    fprintf(out, "<text x=\"%.0f\" y=\"%.0f\" class=\"%s\">", x, y, class);
    for (; *text; text++) {
        if (*text == '<') {
            fputs("&lt;", out);
        } else if (*text == '>') {
            fputs("&gt;", out);
        } else if (*text == '&') {
            fputs("&amp;", out);
        } else {
            fputc(*text, out);
        }
    }
    fputs("</text>\n", out);
}

static void s_row(const dkt_goal_t *goal, const char *id, double y, FILE *out)
{
    char text[96];
    double value = dkt_goal_value(goal);
    bool met = dkt_goal_met(goal);
    double share = goal->at_most ? goal->limit / value : value / goal->limit;
    share = isfinite(share) && share < S_SHARE_MAX ? share : S_SHARE_MAX;
    s_text(out, S_ID_LEFT, y + S_TEXT_LIFT, "s", id);
    s_text(out, S_NAME_LEFT, y + S_TEXT_LIFT, "", goal->name);
    fprintf(out, "<rect x=\"%d\" y=\"%.0f\" width=\"%.1f\" height=\"%d\" class=\"%s\"/>\n",
            S_BAR_LEFT, y, share * S_BAR_WIDTH / S_SHARE_MAX, S_BAR, met ? "met" : "missed");
    snprintf(text, sizeof text, "%.2f %s, goal %s %g%s", value, goal->unit,
             goal->at_most ? "<=" : ">=", goal->limit, met ? "" : ": missed");
    s_text(out, S_VALUE_LEFT, y + S_TEXT_LIFT, "s", text);
}

void dkt_bench_chart(const dkt_suite_t *suite, FILE *out)
{
    char text[256];
    int rows = s_goal_count(suite), height = S_TOP + rows * S_ROW + S_BOTTOM;
    double y = S_TOP, goal_x = S_BAR_LEFT + S_BAR_WIDTH / S_SHARE_MAX;
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
            "viewBox=\"0 0 %d %d\">\n<!-- SPDX-License-Identifier: Apache-2.0 -->\n<title>docket "
            "bench: figures and goals</title>\n%s"
            "<rect width=\"%d\" height=\"%d\" class=\"back\"/>\n",
            S_WIDTH, height, S_WIDTH, height, s_style, S_WIDTH, height);
    s_text(out, S_ID_LEFT, 28, "h", "docket bench: what was reached of each goal");
    snprintf(
        text, sizeof text,
        "%s, %d cores, load average %.1f before, fdatasync %.2f ms; PostgreSQL %.*s, fsync %s%s",
        suite->machine.cpu, suite->machine.cores, suite->machine.load_average,
        suite->machine.fdatasync_ms, (int)strcspn(suite->postgres.version, " "),
        suite->postgres.version, suite->postgres.fsync,
        suite->quick ? "; --quick: small sizes" : "");
    s_text(out, S_ID_LEFT, 50, "s", text);
    for (int i = 0; i < DKT_BENCH_SCENARIOS; i++) {
        for (int k = 0; k < suite->outcomes[i].goal_count; k++, y += S_ROW) {
            s_row(&suite->outcomes[i].goals[k], dkt_scenarios[i].id, y, out);
        }
    }
    fprintf(out,
            "<line x1=\"%.0f\" x2=\"%.0f\" y1=\"%d\" y2=\"%.0f\" class=\"goal\" "
            "stroke-width=\"1.5\"/>\n",
            goal_x, goal_x, S_TOP - 6, y);
    s_text(out, goal_x - 12, y + 16, "s", "goal");
    s_text(out, S_BAR_LEFT + S_BAR_WIDTH - 86, y + 16, "s", "twice and more");
    fputs("</svg>\n", out);
}
