/* SPDX-License-Identifier: Apache-2.0
 *
 * Parameters of a request, one row each: how a value is read into dkt_request_t, how it is written
 * and what its bounds are.
 */
#ifndef DKT_CORE_PROTO_PARAMS_H
#define DKT_CORE_PROTO_PARAMS_H

#include "lib/core/proto.h"
#include "lib/core/proto_mp.h"

/* A parameter's value as found in the frame: its first token, and the cursor behind that. */
typedef struct {
    dkt_mp_token_t token;
    dkt_mp_t rest;
} dkt_param_value_t;

/* What the table knows of the wire names of ticket states; NULL if it is no state. */
const char *dkt_state_wire(dkt_ticket_state_t state);

/* Sets the defaults of parameters that are absent. `request` is cleared before. */
void dkt_params_default(dkt_request_t *request);

/* Reads one value into `request` (whose method is set). On failure the parameter stays absent and
 * `err` (may be NULL) says what it must be. */
void dkt_param_read(dkt_param_t param, const dkt_param_value_t *value, dkt_request_t *request,
                    dkt_err_t *err);

/* Writes the value of one parameter, without its key. */
void dkt_param_write(dkt_w_t *w, dkt_param_t param, const dkt_request_t *request);

/* The parameter of that key, DKT_PARAM_COUNT if there is none. */
dkt_param_t dkt_param_find(dkt_view_t key);

/* Every parameter that the method looks at, the common ones included. */
uint32_t dkt_params_accepted(dkt_method_t method);

#endif
