/* SPDX-License-Identifier: Apache-2.0
 *
 * The data folder of `docket up`.
 *
 *   DIR/lock      flock'd by the supervisor and by every child: free means nobody is left
 *   DIR/keys      see lib/edge/keys.h
 *   DIR/pg        the PostgreSQL cluster        DIR/nats  JetStream's store, DIR/nats.conf
 *   DIR/run, log  pid files and logs
 *
 * Started as root, the folder belongs to the children's user. When that user cannot even reach it
 * (a folder below /root, a test's private folder), the supervisor and its children get a mount
 * namespace of their own in which the folder appears at a place that everybody can reach.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <sodium.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/edge/keys.h"
#include "lib/edge/log.h"
#include "ops/up.h"

#define S_LOCK_POLL_MS    50
#define S_TREE_FILES_OPEN 16    /* of nftw */
#define S_PORT_LOWEST     20000 /* --port 0 chooses here: below the ephemeral ports */
#define S_PORT_RANGE      12000
#define S_PORT_TRIES_MAX  200

static dkt_status_t s_fail_errno(dkt_err_t *err, const char *what, const char *path)
{
    return dkt_fail(err, DKT_INTERNAL, NULL, "cannot %s %s: %s", what, path, strerror(errno));
}

static int s_remove_entry(const char *path, const struct stat *info, int kind, struct FTW *at)
{
    (void)info;
    (void)kind;
    (void)at;
    remove(path);
    return 0;
}

void dkt_up_tree_remove(const char *path)
{
    nftw(path, s_remove_entry, S_TREE_FILES_OPEN, FTW_DEPTH | FTW_PHYS);
}

/* nftw gives its callback no argument. */
static uid_t s_owner_uid;
static gid_t s_owner_gid;

static int s_own_entry(const char *path, const struct stat *info, int kind, struct FTW *at)
{
    (void)kind;
    (void)at;
    if (info->st_uid != s_owner_uid && lchown(path, s_owner_uid, s_owner_gid) != 0) {
        return -1;
    }
    return 0;
}

static bool s_tree_own(const char *path, uid_t uid, gid_t gid)
{
    s_owner_uid = uid;
    s_owner_gid = gid;
    return nftw(path, s_own_entry, S_TREE_FILES_OPEN, FTW_PHYS) == 0;
}

/* Root never runs the fleet: the first of these users that exists does. */
static dkt_status_t s_choose_user(dkt_up_t *up, dkt_err_t *err)
{
    const char *const names[] = {up->options.user, "docket", "postgres", "nobody"};
    if (geteuid() != 0) {
        if (up->options.user) {
            return dkt_fail(err, DKT_INVALID_ARGUMENT, "user", "--user works for root only");
        }
        return DKT_OK;
    }
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        const struct passwd *entry = names[i] ? getpwnam(names[i]) : NULL;
        if (entry && entry->pw_uid != 0) {
            up->drop = true;
            up->uid = entry->pw_uid;
            up->gid = entry->pw_gid;
            return DKT_OK;
        }
        if (names[i] && i == 0) {
            return dkt_fail(err, DKT_INVALID_ARGUMENT, "user",
                            "--user %s: no such user, or root itself", names[i]);
        }
    }
    return dkt_fail(err, DKT_INTERNAL, "user", "no unprivileged user; make one named docket");
}

/* An empty folder, or one of ours: what is in a foreign one must not change its owner. */
static dkt_status_t s_check_ours(const char *dir, dkt_err_t *err)
{
    char lock[DKT_UP_TEXT_BYTES_MAX];
    dkt_up_path(dir, "lock", lock);
    if (access(lock, F_OK) == 0) {
        return DKT_OK;
    }
    DIR *stream = opendir(dir);
    if (!stream) {
        return s_fail_errno(err, "open", dir);
    }
    int entries = 0;
    for (const struct dirent *entry; (entry = readdir(stream));) {
        entries += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    }
    closedir(stream);
    if (entries > 0) {
        return dkt_fail(err, DKT_INVALID_ARGUMENT, "data",
                        "%s is neither empty nor a folder of docket; choose another", dir);
    }
    return DKT_OK;
}

static dkt_status_t s_make_dir(dkt_up_t *up, dkt_err_t *err)
{
    char wanted[DKT_UP_TEXT_BYTES_MAX], full[PATH_MAX];
    if (up->options.data) {
        snprintf(wanted, sizeof wanted, "%s", up->options.data);
        if (mkdir(wanted, 0700) != 0 && errno != EEXIST) {
            return s_fail_errno(err, "create", wanted);
        }
    } else {
        const char *parent = getenv("TMPDIR");
        snprintf(wanted, sizeof wanted, "%s/docket-XXXXXX", parent && *parent ? parent : "/tmp");
        if (!mkdtemp(wanted)) {
            return s_fail_errno(err, "create", wanted);
        }
        up->temporary = true;
    }
    if (!realpath(wanted, full)) {
        return s_fail_errno(err, "find", wanted);
    }
    /* The path stands in settings files and in a URI as it is. */
    if (strlen(full) >= sizeof up->dir || strpbrk(full, " \t\n\"'\\&?#%")) {
        return dkt_fail(err, DKT_INVALID_ARGUMENT, "data",
                        "the path of the data folder is too long or has blanks or quotes in it");
    }
    memcpy(up->dir, full, strlen(full) + 1);
    memcpy(up->view, full, strlen(full) + 1);
    return s_check_ours(up->dir, err);
}

static dkt_status_t s_lock_busy(const dkt_up_t *up, dkt_err_t *err)
{
    char holder[32] = "";
    ssize_t len = pread(up->lock_fd, holder, sizeof holder - 1, 0);
    holder[len > 0 ? len : 0] = '\0';
    long pid = strtol(holder, NULL, 10);
    bool alive = pid > 0 && (kill((pid_t)pid, 0) == 0 || errno == EPERM);
    return dkt_fail(err, DKT_CONFLICT, "data",
                    alive ? "%s is in use by docket up, pid %ld: stop that one first"
                          : "%s is still in use by processes of a fleet whose supervisor %ld is "
                            "gone: see DIR/run",
                    up->dir, pid);
}

/* Waits for the last process of an older fleet: each of them holds the same lock. */
static dkt_status_t s_take_lock(dkt_up_t *up, dkt_err_t *err)
{
    char path[DKT_UP_TEXT_BYTES_MAX], pid[32];
    dkt_up_path(up->dir, "lock", path);
    up->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (up->lock_fd < 0) {
        return s_fail_errno(err, "open", path);
    }
    int64_t until = dkt_up_mono_ms() + DKT_UP_LOCK_WAIT_MS;
    bool said = false;
    while (flock(up->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK) {
            return s_fail_errno(err, "lock", path);
        }
        if (dkt_up_mono_ms() >= until) {
            return s_lock_busy(up, err);
        }
        if (!said) {
            dkt_log(DKT_LOG_INFO, "%s is still in use; waiting for its last process", up->dir);
            said = true;
        }
        dkt_up_pump(up, S_LOCK_POLL_MS);
        if (up->stop_signal) {
            return dkt_fail(err, DKT_UNAVAILABLE, NULL, "stopped by a signal");
        }
    }
    int len = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    if (ftruncate(up->lock_fd, 0) != 0 || pwrite(up->lock_fd, pid, (size_t)len, 0) != len) {
        return s_fail_errno(err, "write", path);
    }
    return DKT_OK;
}

/* Could the children's user work in the folder under this path? Tried, not derived. */
static bool s_reachable(const dkt_up_t *up, const char *path)
{
    pid_t pid = fork();
    if (pid == 0) {
        bool can = setgroups(0, NULL) == 0 && setgid(up->gid) == 0 && setuid(up->uid) == 0 &&
                   chdir(path) == 0 && access(".", R_OK | W_OK | X_OK) == 0;
        _exit(can ? 0 : 1);
    }
    int status = -1;
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return pid > 0 && status == 0;
}

static bool s_is_below(const char *path, const char *folder)
{
    size_t len = strlen(folder);
    return strncmp(path, folder, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

/* Shows the folder to our children at a place they can reach. An existing folder is covered, in
 * this namespace only: there is nothing to clean up, whatever way we end. */
static dkt_status_t s_make_view(dkt_up_t *up, dkt_err_t *err)
{
    static const char *const places[] = {"/mnt", "/media", "/srv", "/opt"};
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) {
        return dkt_fail(err, DKT_PERMISSION_DENIED, "data",
                        "our user cannot reach %s, and mounts are not permitted here: take a "
                        "folder below /var/lib, or do not start as root",
                        up->dir);
    }
    for (unsigned i = 0; i < sizeof places / sizeof places[0]; i++) {
        struct stat info;
        if (s_is_below(up->dir, places[i]) || stat(places[i], &info) != 0 ||
            !S_ISDIR(info.st_mode) || mount(up->dir, places[i], NULL, MS_BIND, NULL) != 0) {
            continue;
        }
        if (s_reachable(up, places[i])) {
            snprintf(up->view, sizeof up->view, "%s", places[i]);
            dkt_log(DKT_LOG_INFO, "the processes see %s as %s (a private mount)", up->dir,
                    up->view);
            return DKT_OK;
        }
        umount2(places[i], MNT_DETACH);
    }
    return dkt_fail(err, DKT_PERMISSION_DENIED, "data",
                    "the fleet's user cannot reach %s: use a --data folder below /var/lib",
                    up->dir);
}

static dkt_status_t s_make_parts(const dkt_up_t *up, dkt_err_t *err)
{
    static const char *const parts[] = {"run", "log", "nats"};
    for (unsigned i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        char path[DKT_UP_TEXT_BYTES_MAX];
        dkt_up_path(up->dir, parts[i], path);
        if (i == 0) {
            dkt_up_tree_remove(path); /* pid files of a fleet that was killed */
        }
        if (mkdir(path, 0700) != 0 && errno != EEXIST) {
            return s_fail_errno(err, "create", path);
        }
        if (up->drop && lchown(path, up->uid, up->gid) != 0) {
            return s_fail_errno(err, "give away", path);
        }
    }
    return DKT_OK;
}

dkt_status_t dkt_up_folder_open(dkt_up_t *up, dkt_err_t *err)
{
    up->program_fd = open("/proc/self/exe", O_PATH | O_CLOEXEC);
    if (up->program_fd < 0) {
        return s_fail_errno(err, "open", "/proc/self/exe");
    }
    dkt_status_t status = s_choose_user(up, err);
    if (status == DKT_OK) {
        status = s_make_dir(up, err);
    }
    if (status == DKT_OK) {
        status = s_take_lock(up, err);
    }
    if (status != DKT_OK) {
        return status;
    }
    struct stat info;
    if (up->drop && stat(up->dir, &info) == 0 && info.st_uid != up->uid &&
        !s_tree_own(up->dir, up->uid, up->gid)) {
        return s_fail_errno(err, "change the owner of", up->dir);
    }
    if (up->drop && !s_reachable(up, up->dir)) {
        status = s_make_view(up, err);
    }
    return status == DKT_OK ? s_make_parts(up, err) : status;
}

dkt_status_t dkt_up_keys_make(const dkt_up_t *up, dkt_err_t *err)
{
    char path[DKT_UP_TEXT_BYTES_MAX];
    dkt_up_path(up->dir, "keys", path);
    dkt_status_t status = dkt_keys_create(path, err);
    if (status == DKT_OK && up->drop && !s_tree_own(path, up->uid, up->gid)) {
        return s_fail_errno(err, "change the owner of", path);
    }
    return status;
}

dkt_status_t dkt_up_file_write(const dkt_up_t *up, const char *name, const char *text,
                               dkt_err_t *err)
{
    char path[DKT_UP_TEXT_BYTES_MAX], fresh[DKT_UP_TEXT_BYTES_MAX + 8];
    dkt_up_path(up->dir, name, path);
    snprintf(fresh, sizeof fresh, "%s.new", path);
    unlink(fresh);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        return s_fail_errno(err, "create", fresh);
    }
    size_t len = strlen(text);
    bool good =
        write(fd, text, len) == (ssize_t)len && (!up->drop || fchown(fd, up->uid, up->gid) == 0);
    close(fd);
    if (!good || rename(fresh, path) != 0) {
        return s_fail_errno(err, "write", path);
    }
    return DKT_OK;
}

bool dkt_up_port_free(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    /* As the servers do it: what only lingers after its end does not count as taken. */
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    bool free_now =
        bind(fd, (const struct sockaddr *)&address, sizeof address) == 0 && listen(fd, 1) == 0;
    close(fd);
    return free_now;
}

/* The first port of a fleet at `base` that is taken; 0: none. `what` tells whose it is. */
static int s_port_taken(const dkt_up_t *up, int base, const char **what)
{
    static const struct {
        int offset;
        const char *what;
        bool per_broker;
    } ports[] = {
        {0, "public side of a broker", true},
        {1, "internal side of a broker", true},
        {6, "workers' side of a broker", true},
        {2, "NATS", false},
        {3, "PostgreSQL", false},
        {5, "NATS websocket", false},
    };
    for (unsigned i = 0; i < sizeof ports / sizeof ports[0]; i++) {
        int count = ports[i].per_broker ? up->options.brokers : 1;
        for (int broker = 0; broker < count; broker++) {
            int port = base + 10 * broker + ports[i].offset;
            if (!dkt_up_port_free(port)) {
                *what = ports[i].what;
                return port;
            }
        }
    }
    return 0;
}

void dkt_up_ports_release(dkt_up_t *up)
{
    while (up->claim_count > 0) {
        close(up->claim_fds[--up->claim_count]);
    }
}

/* Ports are bound a second or two after they were found free, and another fleet may be looking for
 * some just then. So each base has a name that one process can have. It lives where ports live, in
 * the network's namespace, and ends with its process. */
static bool s_ports_claim(dkt_up_t *up, int base)
{
    for (int i = 0; i < up->options.brokers; i++) {
        struct sockaddr_un name = {.sun_family = AF_UNIX};
        int len =
            snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "docket-port-%d", base + 10 * i);
        socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len);
        int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (fd >= 0) {
            up->claim_fds[up->claim_count++] = fd;
        }
        if (fd < 0 || bind(fd, (const struct sockaddr *)&name, size) != 0) {
            dkt_up_ports_release(up);
            return false;
        }
    }
    return true;
}

dkt_status_t dkt_up_ports_choose(dkt_up_t *up, dkt_err_t *err)
{
    const char *what = "";
    if (up->options.port > 0) {
        (void)s_ports_claim(up, up->options.port); /* who named it, gets it if it is free */
        int taken = s_port_taken(up, up->options.port, &what);
        if (taken == 0) {
            return DKT_OK;
        }
        return dkt_fail(err, DKT_CONFLICT, "port",
                        "port %d (%s) is taken; end what listens there (ss -ltnp 'sport = :%d') "
                        "or choose --port N, or --port 0",
                        taken, what, taken);
    }
    for (int i = 0; i < S_PORT_TRIES_MAX; i++) {
        int base = S_PORT_LOWEST + (int)randombytes_uniform(S_PORT_RANGE / 10) * 10;
        if (!s_ports_claim(up, base)) {
            continue;
        }
        if (s_port_taken(up, base, &what) == 0) {
            up->options.port = base;
            return DKT_OK;
        }
        dkt_up_ports_release(up);
    }
    return dkt_fail(err, DKT_CONFLICT, "port", "no free ports found; choose --port N");
}
