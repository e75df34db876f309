/* SPDX-License-Identifier: Apache-2.0
 *
 * Commands that are one call to the fleet, as data: a row names its verb, its method, its
 * parameters and how the answer is printed; one engine parses, asks and prints.
 */
#ifndef DKT_OPS_CMD_COMMON_H
#define DKT_OPS_CMD_COMMON_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/docket.h"
#include "ops/result.h"

#define DKT_CMD_PARAMS_MAX 8

typedef enum {
    DKT_CMD_TEXT,
    DKT_CMD_INT,
    DKT_CMD_BOOL,     /* on or off */
    DKT_CMD_COUNTS,   /* gold=120,silver=240 */
    DKT_CMD_PAYLOAD,  /* text, or @FILE; sent as bytes */
    DKT_CMD_PASSWORD, /* --NAME-file FILE, $variable, a prompt, or for scripts --NAME */
    DKT_CMD_FIXED,    /* not an option: sent as it stands in `help`, "true" or "false" */
} dkt_cmd_kind_t;

typedef struct {
    const char *option; /* without the dashes; the param's row ends with NULL */
    const char *key;    /* on the wire */
    dkt_cmd_kind_t kind;
    bool required;
    bool positional;      /* may be given without its option's name */
    const char *variable; /* environment variable it falls back to, or NULL */
    const char *help;
} dkt_cmd_param_t;

typedef void(dkt_cmd_print_fn)(const dkt_reply_t *reply, const msgpack_object *result);

typedef struct {
    const char *verb;
    const char *method; /* NULL: a line of the help only, the caller has run it itself */
    const char *summary;
    bool internal; /* the internal endpoint, CURVE keys with --keys */
    dkt_cmd_param_t params[DKT_CMD_PARAMS_MAX];
    dkt_cmd_print_fn *print; /* of an answer that is no refusal */
} dkt_cmd_t;

/* Runs argv[1] as one of the rows. Returns the exit status. */
int dkt_cmd_run(const dkt_cmd_t *rows, size_t count, int argc, char **argv);

/* Prints what a refusal says: why, from when on, what would fit. */
void dkt_cmd_print_refusal(FILE *out, const dkt_reply_t *reply, const msgpack_object *result);

/* "key  value" lines of one map, times as people read them. */
void dkt_cmd_print_fields(const msgpack_object *map, const char *const *skip, size_t skip_count);

/* Options of an endpoint with the keys in `keys` (a fleet's key folder), for the internal side.
 * `storage` keeps the texts. INVALID_ARGUMENT if the keys cannot be read. */
typedef struct {
    char server_public[48], client_public[48], client_secret[48];
} dkt_cmd_keys_t;
DKT_CHECKED dkt_status_t dkt_cmd_keys(const char *folder, dkt_cmd_keys_t *storage,
                                      dkt_producer_options_t *options, dkt_err_t *err);

#endif
