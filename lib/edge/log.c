/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/edge/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "lib/core/limits.h"

#define S_NAME_BYTES_MAX 64 /* role and node with their slash */

static const char *const s_names[] = {
    [DKT_LOG_DEBUG] = "DEBUG",
    [DKT_LOG_INFO] = "INFO",
    [DKT_LOG_WARN] = "WARN",
    [DKT_LOG_ERROR] = "ERROR",
};

/* Written by dkt_log_init only, before the first thread; read by every thread after it. */
static char s_who[S_NAME_BYTES_MAX] = "docket";
static dkt_log_level_t s_lowest = DKT_LOG_INFO;

void dkt_log_init(const char *role, const char *node)
{
    if (node && node[0]) {
        snprintf(s_who, sizeof s_who, "%s/%s", role, node);
    } else {
        snprintf(s_who, sizeof s_who, "%s", role);
    }
    const char *wanted = getenv("DOCKET_LOG");
    for (unsigned i = 0; wanted && i < sizeof s_names / sizeof s_names[0]; i++) {
        if (strcasecmp(wanted, s_names[i]) == 0) {
            s_lowest = (dkt_log_level_t)i;
        }
    }
}

static size_t s_put_head(char *line, size_t size, dkt_log_level_t level)
{
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t len = strftime(line, size, "%Y-%m-%dT%H:%M:%S", &utc);
    int more = snprintf(line + len, size - len, ".%03ldZ %s %s: ", now.tv_nsec / 1000000,
                        s_names[level], s_who);
    return len + (size_t)more;
}

void dkt_log(dkt_log_level_t level, const char *format, ...)
{
    if (level < s_lowest) {
        return;
    }
    char line[DKT_LOG_LINE_BYTES_MAX];
    size_t head = s_put_head(line, sizeof line, level);
    size_t room = sizeof line - head - 1;
    va_list args;
    va_start(args, format);
    int wanted = vsnprintf(line + head, room, format, args);
    va_end(args);
    size_t text = wanted < 0 ? 0 : (size_t)wanted < room ? (size_t)wanted : room - 1;
    for (size_t i = head; i < head + text; i++) {
        if ((unsigned char)line[i] < ' ') {
            line[i] = ' ';
        }
    }
    line[head + text] = '\n';
    /* A log that cannot be written must not stop the work: the result is of no use. */
    ssize_t ignored = write(STDERR_FILENO, line, head + text + 1);
    (void)ignored;
}
