/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside of `docket up`, shared by up*.c; the doctor looks at ports with it.
 *
 *   up.c         options, the steps of the start, the ready line
 *   up_folder.c  the data folder: lock, user, private view, ports, removal
 *   up_child.c   one child process: start, pid file, log, end
 *   up_watch.c   the loop: signals, deaths, restarts, the orderly stop
 *   up_roles.c   what the children are: arguments, settings, readiness
 *   up_guard.c   the process that sees to it that nobody outlives the fleet
 */
#ifndef DKT_OPS_UP_H
#define DKT_OPS_UP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/core/limits.h"
#include "lib/core/status.h"

#define DKT_UP_PATH_BYTES_MAX 512  /* of the data folder; what lies in it adds at most 64 */
#define DKT_UP_TEXT_BYTES_MAX 1024 /* a path in the folder, a URI, a list of addresses */
#define DKT_UP_ARGS_MAX       32
#define DKT_UP_CHILDREN_MAX   (2 + DKT_UP_BROKERS_MAX + DKT_UP_WORKERS_MAX)
#define DKT_UP_PG_BIN         "/usr/lib/postgresql/15/bin"

/* Started in this order, stopped in the order of s_stops in up_watch.c. */
typedef enum {
    DKT_UP_POSTGRES,
    DKT_UP_NATS,
    DKT_UP_BROKER,
    DKT_UP_WORKER,
    DKT_UP_TOOL, /* initdb and such: runs once, is waited for */
} dkt_up_role_t;

typedef struct {
    dkt_up_role_t role;
    int index;
    char name[32];         /* "worker-0": pid file, log, messages */
    pid_t pid;             /* 0: not running */
    int ready_fd;          /* its end of the ready pipe; -1: none */
    bool ready;            /* since its last start */
    int exit_status;       /* of waitpid, of its last end */
    int deaths;            /* since it was last alive for DKT_UP_ALIVE_MS */
    int64_t started_ms;    /* monotonic */
    int64_t restart_at_ms; /* monotonic; 0: no restart is due */
} dkt_up_child_t;

typedef struct {
    const char *data; /* NULL: a temporary folder */
    const char *user; /* NULL: chosen */
    int port;
    int brokers;
    int workers;
    bool no_restart;
    bool insecure_dev;
} dkt_up_options_t;

typedef struct {
    dkt_up_options_t options;
    char dir[DKT_UP_PATH_BYTES_MAX];  /* the data folder, absolute */
    char view[DKT_UP_PATH_BYTES_MAX]; /* the same folder, by the path that the children can use */
    bool temporary;
    bool drop; /* we are root: children run as uid and gid */
    uid_t uid;
    gid_t gid;
    int lock_fd;    /* DIR/lock, held by us and by every child */
    int program_fd; /* our own binary */
    int signal_fd;
    int guard_fd;                      /* the guard reads its other end */
    int claim_fds[DKT_UP_BROKERS_MAX]; /* names that say whose the ports are */
    int claim_count;
    pid_t guard_pid;
    int stop_signal; /* what asked us to stop; 0: nothing yet */
    bool started;    /* all were ready: from here on deaths are mended */
    bool broken;     /* a child died and may not be restarted */
    dkt_up_child_t children[DKT_UP_CHILDREN_MAX];
    int child_count;
    dkt_up_child_t tool;
} dkt_up_t;

/* What a child is made of. */
typedef struct {
    const char *program;               /* path; NULL: our own binary */
    int (*run)(const dkt_up_t *up);    /* instead of a program: this function, in the child */
    const char *args[DKT_UP_ARGS_MAX]; /* ends with NULL */
    int death_signal;                  /* sent by the kernel when we die */
    int stdin_fd;                      /* -1: nothing to read */
    int pass_fd;                       /* stays open under its number; -1: none */
} dkt_up_spec_t;

int64_t dkt_up_mono_ms(void);
/* "DIR/a" in `out`; the path as we see it, or as the children do. */
void dkt_up_path(const char *dir, const char *name, char out[DKT_UP_TEXT_BYTES_MAX]);

/* up_folder.c */
DKT_CHECKED dkt_status_t dkt_up_folder_open(dkt_up_t *up, dkt_err_t *err);
DKT_CHECKED dkt_status_t dkt_up_ports_choose(dkt_up_t *up, dkt_err_t *err);
/* Could a server listen there, on the loopback address? */
bool dkt_up_port_free(int port);

/* For a process that is no fleet: it was made by one and may outlive it. */
void dkt_up_ports_release(dkt_up_t *up);
/* Writes a file of the folder as a whole, owned by the children's user. */
DKT_CHECKED dkt_status_t dkt_up_file_write(const dkt_up_t *up, const char *name, const char *text,
                                           dkt_err_t *err);
void dkt_up_tree_remove(const char *path);
/* The keys, made where missing and given to the children's user. */
DKT_CHECKED dkt_status_t dkt_up_keys_make(const dkt_up_t *up, dkt_err_t *err);

/* up_guard.c */
DKT_CHECKED dkt_status_t dkt_up_guard_start(dkt_up_t *up, dkt_err_t *err);
void dkt_up_guard_stop(dkt_up_t *up);

/* up_child.c: false if it could not even be forked. */
bool dkt_up_child_spawn(dkt_up_t *up, dkt_up_child_t *child, const dkt_up_spec_t *spec);
void dkt_up_child_ended(dkt_up_t *up, dkt_up_child_t *child, int exit_status);
/* The last lines of its log on stderr. */
void dkt_up_child_show_log(const dkt_up_t *up, const dkt_up_child_t *child);

/* up_roles.c */
void dkt_up_children_fill(dkt_up_t *up);
/* Starts a child of the fleet by its role. */
bool dkt_up_child_start(dkt_up_t *up, dkt_up_child_t *child);
/* Asks PostgreSQL or NATS whether it serves; brokers and workers report by themselves. */
bool dkt_up_child_probe(const dkt_up_t *up, dkt_up_child_t *child);
DKT_CHECKED dkt_status_t dkt_up_postgres_init(dkt_up_t *up, dkt_err_t *err);
DKT_CHECKED dkt_status_t dkt_up_nats_configure(const dkt_up_t *up, dkt_err_t *err);
DKT_CHECKED dkt_status_t dkt_up_bootstrap(dkt_up_t *up, dkt_err_t *err);
/* The control database's URI with keys below `dir`. */
void dkt_up_control_uri(const dkt_up_t *up, const char *dir, char out[DKT_UP_TEXT_BYTES_MAX]);
/* tcp addresses of all brokers at this offset of their ports, separated by commas. */
void dkt_up_addresses(const dkt_up_t *up, int offset, char out[DKT_UP_TEXT_BYTES_MAX]);

/* up_watch.c */
DKT_CHECKED dkt_status_t dkt_up_watch_open(dkt_up_t *up, dkt_err_t *err);
/* Waits at most so long for a signal, a child's end or its ready byte, and takes note of them. */
void dkt_up_pump(dkt_up_t *up, int64_t timeout_ms);
/* Runs a tool to its end. */
DKT_CHECKED dkt_status_t dkt_up_tool_run(dkt_up_t *up, const char *name, const dkt_up_spec_t *spec,
                                         dkt_err_t *err);
/* Starts all children of these roles and waits until each is ready. */
DKT_CHECKED dkt_status_t dkt_up_roles_start(dkt_up_t *up, dkt_up_role_t first, dkt_up_role_t last,
                                            dkt_err_t *err);
/* Until a signal asks for the end, or a child may not be restarted. */
void dkt_up_watch(dkt_up_t *up);
/* The orderly stop of whatever runs. */
void dkt_up_stop(dkt_up_t *up);

#endif
