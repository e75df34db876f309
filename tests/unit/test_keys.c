/* SPDX-License-Identifier: Apache-2.0
 *
 * The key folder: made once, never overwritten, refused when a file is not what it should be.
 */
#include "lib/edge/keys.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>

typedef struct {
    char root[64];
    char keys[96];
} s_fixture_t;

static int s_setup(void **state)
{
    s_fixture_t *self = calloc(1, sizeof *self);
    assert_non_null(self);
    strcpy(self->root, "/tmp/docket-test-keys-XXXXXX");
    assert_non_null(mkdtemp(self->root));
    snprintf(self->keys, sizeof self->keys, "%s/keys", self->root);
    assert_int_equal(dkt_keys_create(self->keys, NULL), DKT_OK);
    *state = self;
    return 0;
}

static int s_teardown(void **state)
{
    s_fixture_t *self = *state;
    DIR *dir = opendir(self->keys);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        unlinkat(dirfd(dir), entry->d_name, 0);
    }
    closedir(dir);
    assert_int_equal(rmdir(self->keys), 0);
    assert_int_equal(rmdir(self->root), 0);
    free(self);
    return 0;
}

static void s_write(const s_fixture_t *self, const char *file, const char *text)
{
    char path[160];
    snprintf(path, sizeof path, "%s/%s", self->keys, file);
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    fputs(text, out);
    assert_int_equal(fclose(out), 0);
}

static mode_t s_mode(const char *path)
{
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    return info.st_mode & 07777;
}

static void test_keys_create_keeps_secrets_private(void **state)
{
    const s_fixture_t *self = *state;
    int files = 0;
    char path[384];
    assert_int_equal(s_mode(self->keys), 0700);
    DIR *dir = opendir(self->keys);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (entry->d_name[0] == '.') {
            continue;
        }
        snprintf(path, sizeof path, "%s/%s", self->keys, entry->d_name);
        bool open_to_all =
            strcmp(entry->d_name, "internal.pub") == 0 || strcmp(entry->d_name, "receipt.pub") == 0;
        assert_int_equal(s_mode(path), open_to_all ? 0644 : 0600);
        files++;
    }
    closedir(dir);
    assert_int_equal(files, 13);
}

static void test_keys_create_never_overwrites_and_makes_what_is_missing(void **state)
{
    const s_fixture_t *self = *state;
    uint8_t before[DKT_KEY_BYTES], after[DKT_KEY_BYTES];
    dkt_curve_key_t server, public_only;
    char path[160];
    assert_int_equal(dkt_keys_master(self->keys, before, NULL), DKT_OK);
    snprintf(path, sizeof path, "%s/internal.pub", self->keys);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(dkt_keys_create(self->keys, NULL), DKT_OK);
    assert_int_equal(dkt_keys_master(self->keys, after, NULL), DKT_OK);
    assert_memory_equal(before, after, sizeof before);
    assert_int_equal(dkt_keys_curve(self->keys, "internal.key", &server, NULL), DKT_OK);
    assert_int_equal(dkt_keys_curve(self->keys, "internal.pub", &public_only, NULL), DKT_OK);
    assert_string_equal(server.public_key, public_only.public_key);
    assert_int_equal(strlen(server.secret_key), DKT_Z85_KEY_CHARS);
    assert_string_equal(public_only.secret_key, "");
}

static void test_keys_first_client_is_allowed(void **state)
{
    const s_fixture_t *self = *state;
    dkt_curve_key_t client, allowed[2];
    uint32_t count = 0;
    assert_int_equal(dkt_keys_curve(self->keys, "internal-client.key", &client, NULL), DKT_OK);
    assert_int_equal(dkt_keys_allowed(self->keys, allowed, 2, &count, NULL), DKT_OK);
    assert_int_equal(count, 1);
    assert_string_equal(allowed[0].public_key, client.public_key);
}

static void test_keys_ids_newest_first(void **state)
{
    const s_fixture_t *self = *state;
    dkt_keyring_t ring;
    s_write(self, "id.keys",
            "7 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n"
            "3 ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n");
    assert_int_equal(dkt_keys_ids(self->keys, &ring, NULL), DKT_OK);
    assert_int_equal(ring.count, 2);
    assert_int_equal(ring.keys[0].kid, 7);
    assert_int_equal(ring.keys[0].key[31], 0x1f);
    assert_int_equal(ring.keys[1].kid, 3);
    assert_int_equal(ring.keys[1].key[0], 0xff);
}

static void test_keys_ids_refuses_what_is_no_key(void **state)
{
    static const char *const bad[] = {
        "",
        "\n",
        "1\n",
        "x 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n",
        "256 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n",
        "-1 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n",
        "1 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1\n",
        "1 g00102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n",
        "1 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f00\n",
    };
    const s_fixture_t *self = *state;
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        dkt_keyring_t ring;
        dkt_err_t err;
        s_write(self, "id.keys", bad[i]);
        assert_int_not_equal(dkt_keys_ids(self->keys, &ring, &err), DKT_OK);
        assert_non_null(strstr(err.text, "id.keys"));
    }
}

static void test_keys_tokens_sign_with_the_first(void **state)
{
    const s_fixture_t *self = *state;
    dkt_token_secret_t secrets[DKT_KEYS_MAX];
    dkt_token_public_t publics[DKT_KEYS_MAX];
    uint32_t count = 0;
    assert_int_equal(dkt_keys_tokens(self->keys, secrets, publics, DKT_KEYS_MAX, &count, NULL),
                     DKT_OK);
    assert_int_equal(count, 1);
    assert_int_equal(secrets[0].kid, publics[0].kid);
    assert_memory_equal(secrets[0].secret_key + 32, publics[0].public_key, 32);
}

static void test_keys_role_password_differs_by_role_and_master(void **state)
{
    (void)state;
    uint8_t master[DKT_KEY_BYTES] = {1}, other[DKT_KEY_BYTES] = {2};
    char a[DKT_ROLE_PASSWORD_BYTES], b[DKT_ROLE_PASSWORD_BYTES], c[DKT_ROLE_PASSWORD_BYTES],
        again[DKT_ROLE_PASSWORD_BYTES];
    dkt_keys_role_password(master, "t_1", a);
    dkt_keys_role_password(master, "t_2", b);
    dkt_keys_role_password(other, "t_1", c);
    dkt_keys_role_password(master, "t_1", again);
    assert_int_equal(strlen(a), 43);
    assert_string_equal(a, again);
    assert_string_not_equal(a, b);
    assert_string_not_equal(a, c);
}

static void test_keys_nats_seed_and_public_key(void **state)
{
    const s_fixture_t *self = *state;
    dkt_nats_key_t worker, broker;
    assert_int_equal(dkt_keys_nats(self->keys, "worker", &worker, NULL), DKT_OK);
    assert_int_equal(dkt_keys_nats(self->keys, "broker", &broker, NULL), DKT_OK);
    assert_int_equal(worker.public_key[0], 'U');
    assert_int_equal(strlen(worker.public_key), DKT_NKEY_PUBLIC_CHARS);
    assert_string_not_equal(worker.public_key, broker.public_key);
    assert_int_equal(worker.seed[0], 'S');
    assert_int_equal(strlen(worker.seed), DKT_NKEY_SEED_CHARS);
    assert_int_equal(dkt_keys_nats(self->keys, "nobody", &worker, NULL), DKT_NOT_FOUND);
}

/* A pair made elsewhere: the seed of the nkeys project's own documentation. */
static void test_keys_nkey_known_pair(void **state)
{
    (void)state;
    char public_key[DKT_NKEY_PUBLIC_CHARS + 1];
    static const char seed[] = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
    assert_true(dkt_nkey_public_text(seed, public_key));
    assert_string_equal(public_key, "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4");
    for (size_t i = 0; i < sizeof seed - 1; i++) {
        char broken[sizeof seed];
        memcpy(broken, seed, sizeof seed);
        broken[i] = broken[i] == 'A' ? 'B' : 'A';
        assert_false(dkt_nkey_public_text(broken, public_key));
    }
    assert_false(dkt_nkey_public_text("", public_key));
    assert_false(dkt_nkey_public_text("SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VYA",
                                      public_key));
}

static void test_keys_admin_password_is_the_one_in_pgpass(void **state)
{
    const s_fixture_t *self = *state;
    char password[DKT_ROLE_PASSWORD_BYTES], expected[DKT_ROLE_PASSWORD_BYTES];
    memset(expected, 'x', sizeof expected - 1);
    expected[sizeof expected - 1] = '\0';
    char line[96];
    snprintf(line, sizeof line, "*:*:*:docket:%s\n", expected);
    s_write(self, "pgpass", line);
    assert_int_equal(dkt_keys_admin_password(self->keys, password, NULL), DKT_OK);
    assert_string_equal(password, expected);
    s_write(self, "pgpass", "nothing\n");
    assert_int_not_equal(dkt_keys_admin_password(self->keys, password, NULL), DKT_OK);
}

#define S_TEST(name) cmocka_unit_test_setup_teardown(name, s_setup, s_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        S_TEST(test_keys_create_keeps_secrets_private),
        S_TEST(test_keys_create_never_overwrites_and_makes_what_is_missing),
        S_TEST(test_keys_first_client_is_allowed),
        S_TEST(test_keys_ids_newest_first),
        S_TEST(test_keys_ids_refuses_what_is_no_key),
        S_TEST(test_keys_tokens_sign_with_the_first),
        S_TEST(test_keys_nats_seed_and_public_key),
        S_TEST(test_keys_admin_password_is_the_one_in_pgpass),
        cmocka_unit_test(test_keys_role_password_differs_by_role_and_master),
        cmocka_unit_test(test_keys_nkey_known_pair),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
