/* SPDX-License-Identifier: Apache-2.0
 *
 * `docket up` as a child, for the commands that bring a fleet of their own: demo and bench. It has
 * a process group of its own, so that Ctrl-C reaches its parent first, which then ends it and
 * waits; and it is told to stop when its parent dies.
 */
#ifndef DKT_OPS_FLEET_H
#define DKT_OPS_FLEET_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

#define DKT_FLEET_TEXT_BYTES 1024
#define DKT_FLEET_ANY_PORT   (-1)

typedef struct {
    const char *who;  /* "docket demo": what it says begins with that */
    const char *data; /* NULL: a temporary folder, made and removed by the fleet */
    int port;         /* 0: 7410, or the next free one; DKT_FLEET_ANY_PORT: whatever is free */
    int workers;      /* 0: as many as docket up starts by itself */
    FILE *out;        /* tells that it starts and that it is ready; NULL: silence */
    bool (*stopped)(void);
} dkt_fleet_options_t;

typedef struct {
    pid_t pid; /* 0: not running */
    int out_fd, err_fd;
    int port;                            /* 0: its own choice */
    bool temporary;                      /* its folder is to be gone at its end */
    char line[4 * DKT_FLEET_TEXT_BYTES]; /* the ready line */
    char public_endpoint[DKT_FLEET_TEXT_BYTES], internal_endpoint[DKT_FLEET_TEXT_BYTES];
    char nats[DKT_FLEET_TEXT_BYTES], postgres[DKT_FLEET_TEXT_BYTES], keys[DKT_FLEET_TEXT_BYTES];
} dkt_fleet_t;

/* Starts it and waits for its ready line. False (told on stderr) if it does not come. */
bool dkt_fleet_start(dkt_fleet_t *self, const dkt_fleet_options_t *options);
bool dkt_fleet_alive(dkt_fleet_t *self);
void dkt_fleet_stop(dkt_fleet_t *self);

#endif
