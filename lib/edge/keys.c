/* SPDX-License-Identifier: Apache-2.0
 *
 * Every file is written under a name of its own, synced and then linked to its real name: a reader
 * sees a whole file or none, and a key that exists is never replaced.
 */
#include "lib/edge/keys.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>
#include <zmq.h>

#define S_FILE_BYTES_MAX 32768 /* 256 allowed keys of 41 bytes and comments */
#define S_HEX_CHARS      (2 * DKT_KEY_BYTES)
#define S_KID_FIRST      1
#define S_ROLE_CONTEXT   "docket role password:"

static dkt_status_t s_path(const char *folder, const char *file, const char *suffix,
                           char out[DKT_KEY_PATH_BYTES_MAX], dkt_err_t *err)
{
    int len = snprintf(out, DKT_KEY_PATH_BYTES_MAX, "%s/%s%s", folder, file, suffix);
    if (len < 0 || len >= DKT_KEY_PATH_BYTES_MAX) {
        return dkt_fail(err, DKT_INVALID_ARGUMENT, "keys", "the path of %s is too long", file);
    }
    return DKT_OK;
}

static bool s_write_all(int fd, const char *text)
{
    size_t len = strlen(text);
    while (len > 0) {
        ssize_t n = write(fd, text, len);
        if (n < 0) {
            return false;
        }
        text += n;
        len -= (size_t)n;
    }
    return true;
}

/* Makes `file` with that text unless it exists. */
static dkt_status_t s_make(const char *folder, const char *file, mode_t mode, const char *text,
                           dkt_err_t *err)
{
    char path[DKT_KEY_PATH_BYTES_MAX], fresh[DKT_KEY_PATH_BYTES_MAX];
    dkt_status_t status = s_path(folder, file, "", path, err);
    if (status == DKT_OK) {
        status = s_path(folder, file, ".new", fresh, err);
    }
    if (status != DKT_OK) {
        return status;
    }
    /* What a process that was killed half-way left behind has no other name yet: nobody uses it. */
    unlink(fresh);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    if (fd < 0) {
        return dkt_fail(err, DKT_INTERNAL, NULL, "cannot create %s: %s", fresh, strerror(errno));
    }
    bool written = fchmod(fd, mode) == 0 && s_write_all(fd, text) && fsync(fd) == 0;
    int write_errno = errno;
    close(fd);
    if (!written) {
        unlink(fresh);
        return dkt_fail(err, DKT_INTERNAL, NULL, "cannot write %s: %s", fresh,
                        strerror(write_errno));
    }
    bool linked = link(fresh, path) == 0 || errno == EEXIST;
    int link_errno = errno;
    unlink(fresh);
    if (!linked) {
        return dkt_fail(err, DKT_INTERNAL, NULL, "cannot create %s: %s", path,
                        strerror(link_errno));
    }
    return DKT_OK;
}

static bool s_exists(const char *folder, const char *file)
{
    char path[DKT_KEY_PATH_BYTES_MAX];
    return s_path(folder, file, "", path, NULL) == DKT_OK && access(path, F_OK) == 0;
}

/* The whole file, NUL-terminated. */
static dkt_status_t s_read(const char *folder, const char *file, char out[S_FILE_BYTES_MAX],
                           dkt_err_t *err)
{
    char path[DKT_KEY_PATH_BYTES_MAX];
    dkt_status_t status = s_path(folder, file, "", path, err);
    if (status != DKT_OK) {
        return status;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        dkt_status_t why = errno == ENOENT ? DKT_NOT_FOUND : DKT_PERMISSION_DENIED;
        return dkt_fail(err, why, NULL, "cannot read %s: %s", path, strerror(errno));
    }
    ssize_t len = 0, n = 0;
    do {
        len += n;
        n = read(fd, out + len, (size_t)(S_FILE_BYTES_MAX - len));
    } while (n > 0 && len + n < S_FILE_BYTES_MAX);
    close(fd);
    if (n != 0) {
        return dkt_fail(err, DKT_INTERNAL, NULL, "%s is too long or cannot be read", path);
    }
    out[len] = '\0';
    if (strlen(out) != (size_t)len) {
        return dkt_fail(err, DKT_INTERNAL, NULL, "%s is not a text file", path);
    }
    return DKT_OK;
}

static void s_random_hex(char out[S_HEX_CHARS + 1])
{
    uint8_t bytes[DKT_KEY_BYTES];
    randombytes_buf(bytes, sizeof bytes);
    sodium_bin2hex(out, S_HEX_CHARS + 1, bytes, sizeof bytes);
    sodium_memzero(bytes, sizeof bytes);
}

static dkt_status_t s_make_hex(const char *folder, const char *file, bool with_kid, dkt_err_t *err)
{
    char hex[S_HEX_CHARS + 1], line[S_HEX_CHARS + 16];
    s_random_hex(hex);
    if (with_kid) {
        snprintf(line, sizeof line, "%d %s\n", S_KID_FIRST, hex);
    } else {
        snprintf(line, sizeof line, "%s\n", hex);
    }
    dkt_status_t status = s_make(folder, file, 0600, line, err);
    sodium_memzero(hex, sizeof hex);
    sodium_memzero(line, sizeof line);
    return status;
}

static void s_password_text(const uint8_t bytes[DKT_KEY_BYTES], char out[DKT_ROLE_PASSWORD_BYTES])
{
    sodium_bin2base64(out, DKT_ROLE_PASSWORD_BYTES, bytes, DKT_KEY_BYTES,
                      sodium_base64_VARIANT_URLSAFE_NO_PADDING);
}

static dkt_status_t s_make_pgpass(const char *folder, const char *file, dkt_err_t *err)
{
    uint8_t bytes[DKT_KEY_BYTES];
    char password[DKT_ROLE_PASSWORD_BYTES], line[DKT_ROLE_PASSWORD_BYTES + 32];
    randombytes_buf(bytes, sizeof bytes);
    s_password_text(bytes, password);
    /* Any host and port: the same folder serves a fleet on another port tomorrow. */
    snprintf(line, sizeof line, "*:*:*:docket:%s\n", password);
    return s_make(folder, file, 0600, line, err);
}

static dkt_status_t s_make_curve(const char *folder, const char *file, dkt_err_t *err)
{
    dkt_curve_key_t key;
    char text[2 * sizeof key.public_key + 2];
    if (zmq_curve_keypair(key.public_key, key.secret_key) != 0) {
        return dkt_fail(err, DKT_INTERNAL, NULL, "libzmq was built without CURVE");
    }
    snprintf(text, sizeof text, "%s\n%s\n", key.public_key, key.secret_key);
    dkt_status_t status = s_make(folder, file, 0600, text, err);
    sodium_memzero(&key, sizeof key);
    sodium_memzero(text, sizeof text);
    return status;
}

/* `file` with the public half of `key_file`, a line. */
static dkt_status_t s_make_public(const char *folder, const char *key_file, const char *file,
                                  mode_t mode, dkt_err_t *err)
{
    dkt_curve_key_t key;
    char line[sizeof key.public_key + 1];
    dkt_status_t status = dkt_keys_curve(folder, key_file, &key, err);
    if (status != DKT_OK) {
        return status;
    }
    snprintf(line, sizeof line, "%s\n", key.public_key);
    sodium_memzero(&key, sizeof key);
    return s_make(folder, file, mode, line, err);
}

static dkt_status_t s_make_nats(const char *folder, const char *file, dkt_err_t *err)
{
    uint8_t seed[DKT_NKEY_RAW_BYTES];
    char text[DKT_NKEY_SEED_CHARS + 2];
    randombytes_buf(seed, sizeof seed);
    dkt_nkey_seed_text(seed, text);
    strcat(text, "\n");
    dkt_status_t status = s_make(folder, file, 0600, text, err);
    sodium_memzero(seed, sizeof seed);
    sodium_memzero(text, sizeof text);
    return status;
}

static dkt_status_t s_make_kid_key(const char *folder, const char *file, dkt_err_t *err)
{
    return s_make_hex(folder, file, true, err);
}

static dkt_status_t s_make_master(const char *folder, const char *file, dkt_err_t *err)
{
    return s_make_hex(folder, file, false, err);
}

static dkt_status_t s_make_internal_pub(const char *folder, const char *file, dkt_err_t *err)
{
    return s_make_public(folder, "internal.key", file, 0644, err);
}

static dkt_status_t s_make_allowed(const char *folder, const char *file, dkt_err_t *err)
{
    return s_make_public(folder, "internal-client.key", file, 0600, err);
}

static dkt_status_t s_make_receipt_pub(const char *folder, const char *file, dkt_err_t *err)
{
    uint8_t secret[crypto_sign_SECRETKEYBYTES];
    char line[S_HEX_CHARS + 2];
    dkt_status_t status = dkt_keys_receipt(folder, secret, err);
    if (status != DKT_OK) {
        return status;
    }
    sodium_bin2hex(line, sizeof line, secret + crypto_sign_SEEDBYTES, crypto_sign_PUBLICKEYBYTES);
    sodium_memzero(secret, sizeof secret);
    memcpy(line + S_HEX_CHARS, "\n", 2);
    return s_make(folder, file, 0644, line, err);
}

/* In this order: a public file is made from the key before it. */
static const struct {
    const char *file;
    dkt_status_t (*make)(const char *folder, const char *file, dkt_err_t *err);
} s_files[] = {
    {"id.keys", s_make_kid_key},           {"token.keys", s_make_kid_key},
    {"master.key", s_make_master},         {"pgpass", s_make_pgpass},
    {"internal.key", s_make_curve},        {"internal.pub", s_make_internal_pub},
    {"internal-client.key", s_make_curve}, {"internal.allowed", s_make_allowed},
    {"nats-worker.nk", s_make_nats},       {"nats-broker.nk", s_make_nats},
    {"nats-ops.nk", s_make_nats},          {"receipt.key", s_make_master},
    {"receipt.pub", s_make_receipt_pub},
};

dkt_status_t dkt_keys_create(const char *folder, dkt_err_t *err)
{
    if (sodium_init() < 0) {
        return dkt_fail(err, DKT_INTERNAL, NULL, "libsodium cannot start");
    }
    if (mkdir(folder, 0700) != 0 && errno != EEXIST) {
        return dkt_fail(err, DKT_INTERNAL, NULL, "cannot create %s: %s", folder, strerror(errno));
    }
    for (unsigned i = 0; i < sizeof s_files / sizeof s_files[0]; i++) {
        if (s_exists(folder, s_files[i].file)) {
            continue;
        }
        dkt_status_t status = s_files[i].make(folder, s_files[i].file, err);
        if (status != DKT_OK) {
            return status;
        }
    }
    return DKT_OK;
}

static dkt_status_t s_bad_line(const char *file, int line, dkt_err_t *err)
{
    return dkt_fail(err, DKT_INTERNAL, NULL, "key file %s, line %d: not a key", file, line);
}

/* The next line of a text, empty ones left out; NULL at its end. `text` loses its newlines. */
static char *s_next_line(char **text)
{
    char *line;
    do {
        line = strsep(text, "\n");
    } while (line && !*line);
    return line;
}

static bool s_parse_hex(const char *hex, uint8_t out[DKT_KEY_BYTES])
{
    size_t len = 0;
    return strlen(hex) == S_HEX_CHARS &&
           sodium_hex2bin(out, DKT_KEY_BYTES, hex, S_HEX_CHARS, NULL, &len, NULL) == 0 &&
           len == DKT_KEY_BYTES;
}

/* "kid hex" */
static bool s_parse_kid_line(char *line, uint32_t kid_max, dkt_token_public_t *out)
{
    char *rest = NULL;
    errno = 0;
    unsigned long kid = strtoul(line, &rest, 10);
    if (errno || rest == line || *rest != ' ' || line[0] == '-' || kid > kid_max) {
        return false;
    }
    out->kid = (uint32_t)kid;
    return s_parse_hex(rest + 1, out->public_key);
}

/* The lines "kid hex" of a file as pairs; the key is whatever the file means by it. */
static dkt_status_t s_read_kids(const char *folder, const char *file, uint32_t kid_max,
                                dkt_token_public_t *pairs, uint32_t pairs_max, uint32_t *count,
                                dkt_err_t *err)
{
    char text[S_FILE_BYTES_MAX];
    dkt_status_t status = s_read(folder, file, text, err);
    if (status != DKT_OK) {
        return status;
    }
    char *rest = text, *line;
    uint32_t n = 0;
    while (status == DKT_OK && (line = s_next_line(&rest))) {
        if (n == pairs_max || !s_parse_kid_line(line, kid_max, &pairs[n])) {
            status = s_bad_line(file, (int)n + 1, err);
        }
        n++;
    }
    if (status == DKT_OK && n == 0) {
        status = s_bad_line(file, 1, err);
    }
    sodium_memzero(text, sizeof text);
    *count = n;
    return status;
}

dkt_status_t dkt_keys_ids(const char *folder, dkt_keyring_t *ring, dkt_err_t *err)
{
    dkt_token_public_t pairs[DKT_KEYS_MAX];
    uint32_t count = 0;
    dkt_status_t status =
        s_read_kids(folder, "id.keys", UINT8_MAX, pairs, DKT_KEYS_MAX, &count, err);
    if (status == DKT_OK) {
        ring->count = count;
        for (uint32_t i = 0; i < count; i++) {
            ring->keys[i].kid = (uint8_t)pairs[i].kid;
            memcpy(ring->keys[i].key, pairs[i].public_key, DKT_KEY_BYTES);
        }
    }
    sodium_memzero(pairs, sizeof pairs);
    return status;
}

dkt_status_t dkt_keys_tokens(const char *folder, dkt_token_secret_t *secrets,
                             dkt_token_public_t *publics, uint32_t keys_max, uint32_t *count,
                             dkt_err_t *err)
{
    dkt_token_public_t seeds[DKT_KEYS_MAX];
    uint32_t seeds_max = keys_max < DKT_KEYS_MAX ? keys_max : DKT_KEYS_MAX;
    uint32_t found = 0;
    dkt_status_t status =
        s_read_kids(folder, "token.keys", UINT32_MAX, seeds, seeds_max, &found, err);
    if (status == DKT_OK) {
        for (uint32_t i = 0; i < found; i++) {
            dkt_token_keys(seeds[i].kid, seeds[i].public_key, &secrets[i], &publics[i]);
        }
        *count = found;
    }
    sodium_memzero(seeds, sizeof seeds);
    return status;
}

/* A file of one line, 32 bytes in hex. */
static dkt_status_t s_read_hex(const char *folder, const char *file, uint8_t out[DKT_KEY_BYTES],
                               dkt_err_t *err)
{
    char text[S_FILE_BYTES_MAX];
    dkt_status_t status = s_read(folder, file, text, err);
    if (status != DKT_OK) {
        return status;
    }
    char *rest = text;
    char *line = s_next_line(&rest);
    if (!line || !s_parse_hex(line, out)) {
        status = s_bad_line(file, 1, err);
    }
    sodium_memzero(text, sizeof text);
    return status;
}

dkt_status_t dkt_keys_master(const char *folder, uint8_t master[DKT_KEY_BYTES], dkt_err_t *err)
{
    return s_read_hex(folder, "master.key", master, err);
}

dkt_status_t dkt_keys_receipt(const char *folder, uint8_t secret[crypto_sign_SECRETKEYBYTES],
                              dkt_err_t *err)
{
    uint8_t seed[DKT_KEY_BYTES], public_key[crypto_sign_PUBLICKEYBYTES];
    _Static_assert(DKT_KEY_BYTES == crypto_sign_SEEDBYTES, "a seed is a line of the file");
    dkt_status_t status = s_read_hex(folder, "receipt.key", seed, err);
    if (status == DKT_OK) {
        crypto_sign_seed_keypair(public_key, secret, seed);
    }
    sodium_memzero(seed, sizeof seed);
    return status;
}

dkt_status_t dkt_keys_receipt_public(const char *folder, uint8_t public_key[DKT_KEY_BYTES],
                                     dkt_err_t *err)
{
    return s_read_hex(folder, "receipt.pub", public_key, err);
}

void dkt_keys_role_password(const uint8_t master[DKT_KEY_BYTES], const char *role,
                            char out[DKT_ROLE_PASSWORD_BYTES])
{
    uint8_t hash[DKT_KEY_BYTES];
    crypto_generichash_state state;
    crypto_generichash_init(&state, master, DKT_KEY_BYTES, sizeof hash);
    crypto_generichash_update(&state, (const uint8_t *)S_ROLE_CONTEXT, sizeof S_ROLE_CONTEXT - 1);
    crypto_generichash_update(&state, (const uint8_t *)role, strlen(role));
    crypto_generichash_final(&state, hash, sizeof hash);
    s_password_text(hash, out);
    sodium_memzero(hash, sizeof hash);
}

static bool s_is_z85_key(const char *text)
{
    uint8_t raw[DKT_KEY_BYTES];
    bool good = strlen(text) == DKT_Z85_KEY_CHARS && zmq_z85_decode(raw, text) != NULL;
    sodium_memzero(raw, sizeof raw);
    return good;
}

dkt_status_t dkt_keys_curve(const char *folder, const char *file, dkt_curve_key_t *key,
                            dkt_err_t *err)
{
    char text[S_FILE_BYTES_MAX];
    dkt_status_t status = s_read(folder, file, text, err);
    if (status != DKT_OK) {
        return status;
    }
    char *rest = text;
    const char *public_key = s_next_line(&rest);
    const char *secret_key = s_next_line(&rest);
    if (!public_key || !s_is_z85_key(public_key)) {
        status = s_bad_line(file, 1, err);
    } else if (secret_key && !s_is_z85_key(secret_key)) {
        status = s_bad_line(file, 2, err);
    } else {
        memcpy(key->public_key, public_key, DKT_Z85_KEY_CHARS + 1);
        memset(key->secret_key, 0, sizeof key->secret_key);
        if (secret_key) {
            memcpy(key->secret_key, secret_key, DKT_Z85_KEY_CHARS + 1);
        }
    }
    sodium_memzero(text, sizeof text);
    return status;
}

dkt_status_t dkt_keys_allowed(const char *folder, dkt_curve_key_t *keys, uint32_t keys_max,
                              uint32_t *count, dkt_err_t *err)
{
    static const char file[] = "internal.allowed";
    char text[S_FILE_BYTES_MAX];
    dkt_status_t status = s_read(folder, file, text, err);
    char *rest = text, *line;
    uint32_t n = 0;
    while (status == DKT_OK && (line = s_next_line(&rest))) {
        if (n == keys_max || !s_is_z85_key(line)) {
            return s_bad_line(file, (int)n + 1, err);
        }
        memset(&keys[n], 0, sizeof keys[n]);
        memcpy(keys[n].public_key, line, DKT_Z85_KEY_CHARS + 1);
        n++;
    }
    if (status == DKT_OK) {
        *count = n;
    }
    return status;
}

dkt_status_t dkt_keys_nats(const char *folder, const char *role, dkt_nats_key_t *key,
                           dkt_err_t *err)
{
    char text[S_FILE_BYTES_MAX], file[64];
    snprintf(file, sizeof file, "nats-%s.nk", role);
    dkt_status_t status = s_read(folder, file, text, err);
    if (status != DKT_OK) {
        return status;
    }
    char *rest = text;
    const char *seed = s_next_line(&rest);
    if (!seed || !dkt_nkey_public_text(seed, key->public_key)) {
        status = s_bad_line(file, 1, err);
    } else {
        memcpy(key->seed, seed, sizeof key->seed); /* its length has been judged */
    }
    sodium_memzero(text, sizeof text);
    return status;
}

dkt_status_t dkt_keys_admin_password(const char *folder, char out[DKT_ROLE_PASSWORD_BYTES],
                                     dkt_err_t *err)
{
    char text[S_FILE_BYTES_MAX];
    dkt_status_t status = s_read(folder, "pgpass", text, err);
    if (status != DKT_OK) {
        return status;
    }
    char *rest = text;
    const char *line = s_next_line(&rest);
    const char *colon = line ? strrchr(line, ':') : NULL;
    if (!colon || strlen(colon + 1) != DKT_ROLE_PASSWORD_BYTES - 1) {
        status = s_bad_line("pgpass", 1, err);
    } else {
        memcpy(out, colon + 1, DKT_ROLE_PASSWORD_BYTES);
    }
    sodium_memzero(text, sizeof text);
    return status;
}
