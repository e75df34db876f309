/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/pg_connect.h"

#include <stdbool.h>
#include <string.h>

#define S_CONNINFO_MAX 48 /* options of a libpq connection string */

PGconn *dkt_pg_connect(const PQconninfoOption *options, const char *database)
{
    const char *keys[S_CONNINFO_MAX + 1], *values[S_CONNINFO_MAX + 1];
    size_t count = 0;
    for (const PQconninfoOption *option = options;
         option && option->keyword && count < S_CONNINFO_MAX; option++) {
        bool name = database && strcmp(option->keyword, "dbname") == 0;
        if (name || option->val) {
            keys[count] = option->keyword;
            values[count++] = name ? database : option->val;
        }
    }
    keys[count] = values[count] = NULL;
    return PQconnectdbParams(keys, values, 0);
}
