/* SPDX-License-Identifier: Apache-2.0
 *
 * See cmd_common.h: parsing, the one call, and what everybody's answer looks like.
 */
#include "ops/cmd_common.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include "lib/core/limits.h"
#include "lib/core/ids.h"
#include "lib/edge/keys.h"

#define S_PUBLIC_DEFAULT   "tcp://127.0.0.1:7410"
#define S_INTERNAL_DEFAULT "tcp://127.0.0.1:7411"
#define S_SECRET_BYTES_MAX (DKT_PASSWORD_CHARS_MAX * 4 + 2)
#define S_FILE_BYTES_MAX   (DKT_PAYLOAD_BYTES_MAX + 1) /* one more, so that too much is seen */
#define S_TIMEOUT_MAX_MS   600000

enum { S_EXIT_DONE, S_EXIT_FAILED, S_EXIT_USE };

/* What one run has been told. */
typedef struct {
    const dkt_cmd_t *row;
    bool json, help, insecure;
    const char *endpoint, *token, *keys, *request_id, *timeout_ms;
    const char *values[DKT_CMD_PARAMS_MAX]; /* by param; NULL: not given */
    const char *files[DKT_CMD_PARAMS_MAX];  /* --NAME-file of a password */
    char secrets[2][S_SECRET_BYTES_MAX];
    size_t secret_count;
    uint8_t *file;
    dkt_count_t counts[2][DKT_CLASSES_MAX];
    char count_names[2][DKT_CLASSES_MAX][DKT_CLASS_NAME_BYTES_MAX + 1];
    size_t counts_used;
    dkt_arg_t args[DKT_CMD_PARAMS_MAX + 1];
    size_t arg_count;
} s_run_t;

/* -- help ------------------------------------------------------------------------------------- */

static void s_print_verbs(FILE *out, const dkt_cmd_t *rows, size_t count, const char *noun)
{
    fprintf(out, "usage: docket %s VERB [options]\n\n", noun);
    for (size_t i = 0; i < count; i++) {
        fprintf(out, "  %-10s %s%s\n", rows[i].verb, rows[i].summary,
                rows[i].internal ? " (internal)" : "");
    }
    fprintf(out, "\n`docket %s VERB --help` tells the options.\n", noun);
}

static void s_print_param(const dkt_cmd_param_t *param)
{
    char name[48], variable[48] = "";
    snprintf(name, sizeof name, "--%s%s", param->option,
             param->kind == DKT_CMD_PASSWORD ? "-file FILE" : " VALUE");
    if (param->variable) {
        snprintf(variable, sizeof variable, "; default $%s", param->variable);
    }
    printf("  %-26s %s%s%s%s\n", name, param->help, param->required ? " (needed)" : "", variable,
           param->kind == DKT_CMD_PASSWORD ? ", or a prompt" : "");
}

static void s_print_help(const dkt_cmd_t *row, const char *noun)
{
    printf("usage: docket %s %s", noun, row->verb);
    for (const dkt_cmd_param_t *param = row->params; param->option; param++) {
        if (param->positional) {
            printf(" %s", param->option);
        }
    }
    printf(" [options]\n%s\n\n", row->summary);
    for (const dkt_cmd_param_t *param = row->params; param->option; param++) {
        if (param->kind != DKT_CMD_FIXED) {
            s_print_param(param);
        }
    }
    printf("  %-26s %s\n", "--endpoint ADDRESS",
           row->internal ? "default $DOCKET_INTERNAL or " S_INTERNAL_DEFAULT
                         : "default $DOCKET_ENDPOINT or " S_PUBLIC_DEFAULT);
    if (row->internal) {
        printf("  %-26s %s\n", "--keys DIR", "the fleet's key folder; default $DOCKET_KEYS");
        printf("  %-26s %s\n", "--insecure-dev", "no CURVE, for a fleet that runs without it");
    } else {
        printf("  %-26s %s\n", "--token TOKEN", "of `docket account login`; default $DOCKET_TOKEN");
    }
    printf("  %-26s %s\n", "--request-id UUID", "repeat the request of that id; default a new one");
    printf("  %-26s %s\n", "--timeout MS", "give up after; default 10000");
    printf("  %-26s %s\n", "--json", "print the result as one line of JSON");
    printf("\nExit status: 0 done, 1 refused or failed, 2 wrong use.\n");
}

/* -- parsing ---------------------------------------------------------------------------------- */

static int s_wrong_use(const char *format, const char *what)
{
    fputs("docket: ", stderr);
    fprintf(stderr, "%s%s (--help tells the options)\n", format, what);
    return S_EXIT_USE;
}

/* True if `word` is `--name`, or `--name=value`; then *value is what follows, or NULL. */
static bool s_is_option(const char *word, const char *name, const char *suffix, const char **value)
{
    size_t len = strlen(name), suffix_len = strlen(suffix);
    if (strncmp(word, "--", 2) != 0 || strncmp(word + 2, name, len) != 0 ||
        strncmp(word + 2 + len, suffix, suffix_len) != 0) {
        return false;
    }
    const char *rest = word + 2 + len + suffix_len;
    *value = *rest == '=' ? rest + 1 : NULL;
    return *rest == '\0' || *rest == '=';
}

/* Where the value of an option goes; NULL if there is no such option. */
static const char **s_option_target(s_run_t *run, const char *word, const char **value)
{
    const struct {
        const char *name;
        const char **target;
    } common[] = {{"endpoint", &run->endpoint},
                  {"token", &run->token},
                  {"keys", &run->keys},
                  {"request-id", &run->request_id},
                  {"timeout", &run->timeout_ms}};
    for (size_t i = 0; run->row->params[i].option; i++) {
        const dkt_cmd_param_t *param = &run->row->params[i];
        if (param->kind == DKT_CMD_PASSWORD && s_is_option(word, param->option, "-file", value)) {
            return &run->files[i];
        }
        if (param->kind != DKT_CMD_FIXED && s_is_option(word, param->option, "", value)) {
            return &run->values[i];
        }
    }
    for (size_t i = 0; i < sizeof common / sizeof common[0]; i++) {
        if (s_is_option(word, common[i].name, "", value)) {
            return common[i].target;
        }
    }
    return NULL;
}

static bool s_take_flag(s_run_t *run, const char *word)
{
    const struct {
        const char *word;
        bool *flag;
    } flags[] = {{"--json", &run->json},
                 {"--help", &run->help},
                 {"-h", &run->help},
                 {"--insecure-dev", &run->insecure}};
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        if (strcmp(word, flags[i].word) == 0) {
            *flags[i].flag = true;
            return true;
        }
    }
    return false;
}

static bool s_take_positional(s_run_t *run, const char *word)
{
    for (size_t i = 0; run->row->params[i].option; i++) {
        if (run->row->params[i].positional && !run->values[i]) {
            run->values[i] = word;
            return true;
        }
    }
    return false;
}

static int s_parse(s_run_t *run, int argc, char **argv)
{
    for (int i = 2; i < argc; i++) {
        const char *value = NULL;
        if (s_take_flag(run, argv[i])) {
            continue;
        }
        if (argv[i][0] != '-') {
            if (!s_take_positional(run, argv[i])) {
                return s_wrong_use("one word too many: ", argv[i]);
            }
            continue;
        }
        const char **target = s_option_target(run, argv[i], &value);
        if (!target) {
            return s_wrong_use("unknown option ", argv[i]);
        }
        if (!value && i + 1 >= argc) {
            return s_wrong_use("a value is missing after ", argv[i]);
        }
        *target = value ? value : argv[++i];
    }
    return S_EXIT_DONE;
}

/* -- values ----------------------------------------------------------------------------------- */

/* Reads at most `max` bytes; -1 if it cannot be read. */
static ssize_t s_read_file(const char *path, void *out, size_t max)
{
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "r");
    if (!file) {
        return -1;
    }
    size_t len = fread(out, 1, max, file);
    bool failed = ferror(file);
    if (file != stdin) {
        fclose(file);
    }
    return failed ? -1 : (ssize_t)len;
}

/* One line from the terminal, without an echo. */
static bool s_prompt(const char *what, char *out, size_t max)
{
    struct termios before, quiet;
    if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &before) != 0) {
        return false;
    }
    quiet = before;
    quiet.c_lflag &= (tcflag_t)~ECHO;
    fprintf(stderr, "%s: ", what);
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
    bool ok = fgets(out, (int)max, stdin) != NULL;
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
    fputc('\n', stderr);
    return ok;
}

static int s_add_password(s_run_t *run, size_t i)
{
    const dkt_cmd_param_t *param = &run->row->params[i];
    const char *given = run->values[i];
    if (!given && !run->files[i] && param->variable) {
        given = getenv(param->variable);
    }
    if (!given) {
        assert(run->secret_count < 2);
        char *secret = run->secrets[run->secret_count++];
        if (run->files[i]) {
            ssize_t len = s_read_file(run->files[i], secret, S_SECRET_BYTES_MAX - 1);
            if (len < 0) {
                return s_wrong_use("cannot read ", run->files[i]);
            }
            secret[len] = '\0';
        } else if (!s_prompt(param->option, secret, S_SECRET_BYTES_MAX)) {
            return s_wrong_use("a password is needed: --password-file, $DOCKET_PASSWORD or a "
                               "terminal; missing is ",
                               param->option);
        }
        secret[strcspn(secret, "\r\n")] = '\0';
        given = secret;
    }
    run->args[run->arg_count++] = dkt_arg_text(param->key, given);
    return S_EXIT_DONE;
}

static bool s_number(const char *text, int64_t *number)
{
    char *end = NULL;
    errno = 0;
    *number = strtoll(text, &end, 10);
    return end != text && *end == '\0' && errno == 0;
}

static int s_add_int(s_run_t *run, size_t i)
{
    int64_t number = 0;
    if (!s_number(run->values[i], &number)) {
        return s_wrong_use("not a number: ", run->values[i]);
    }
    run->args[run->arg_count++] = dkt_arg_int(run->row->params[i].key, number);
    return S_EXIT_DONE;
}

static int s_add_bool(s_run_t *run, size_t i)
{
    static const char *const yes[] = {"on", "true", "yes", "1"};
    static const char *const no[] = {"off", "false", "no", "0"};
    for (size_t k = 0; k < sizeof yes / sizeof yes[0]; k++) {
        bool is_yes = strcmp(run->values[i], yes[k]) == 0;
        if (is_yes || strcmp(run->values[i], no[k]) == 0) {
            run->args[run->arg_count++] = dkt_arg_bool(run->row->params[i].key, is_yes);
            return S_EXIT_DONE;
        }
    }
    return s_wrong_use("neither on nor off: ", run->values[i]);
}

/* "gold=120,silver=240" */
static int s_add_counts(s_run_t *run, size_t i)
{
    assert(run->counts_used < 2);
    size_t used = run->counts_used++, count = 0;
    for (const char *at = run->values[i]; *at;) {
        const char *equals = strchr(at, '=');
        size_t len = equals ? (size_t)(equals - at) : 0;
        char *end = NULL;
        if (!equals || len == 0 || len > DKT_CLASS_NAME_BYTES_MAX || count == DKT_CLASSES_MAX) {
            return s_wrong_use("not of the form name=number,..: ", run->values[i]);
        }
        memcpy(run->count_names[used][count], at, len);
        run->counts[used][count].name = run->count_names[used][count];
        run->counts[used][count++].value = strtoll(equals + 1, &end, 10);
        if (end == equals + 1 || (*end && *end != ',')) {
            return s_wrong_use("not of the form name=number,..: ", run->values[i]);
        }
        at = *end ? end + 1 : end;
    }
    run->args[run->arg_count++] = dkt_arg_counts(run->row->params[i].key, run->counts[used], count);
    return S_EXIT_DONE;
}

static int s_add_payload(s_run_t *run, size_t i)
{
    const char *value = run->values[i];
    if (value[0] != '@') {
        run->args[run->arg_count++] = dkt_arg_bytes(run->row->params[i].key, value, strlen(value));
        return S_EXIT_DONE;
    }
    run->file = malloc(S_FILE_BYTES_MAX);
    ssize_t len = run->file ? s_read_file(value + 1, run->file, S_FILE_BYTES_MAX) : -1;
    if (len < 0) {
        return s_wrong_use("cannot read ", value + 1);
    }
    run->args[run->arg_count++] = dkt_arg_bytes(run->row->params[i].key, run->file, (size_t)len);
    return S_EXIT_DONE;
}

static int s_add_text(s_run_t *run, size_t i)
{
    run->args[run->arg_count++] = dkt_arg_text(run->row->params[i].key, run->values[i]);
    return S_EXIT_DONE;
}

static int s_add_fixed(s_run_t *run, size_t i)
{
    const dkt_cmd_param_t *param = &run->row->params[i];
    run->args[run->arg_count++] = dkt_arg_bool(param->key, strcmp(param->help, "true") == 0);
    return S_EXIT_DONE;
}

typedef int(s_add_fn)(s_run_t *run, size_t param);

static s_add_fn *const s_add[] = {
    [DKT_CMD_TEXT] = s_add_text,       [DKT_CMD_INT] = s_add_int,
    [DKT_CMD_BOOL] = s_add_bool,       [DKT_CMD_COUNTS] = s_add_counts,
    [DKT_CMD_PAYLOAD] = s_add_payload, [DKT_CMD_PASSWORD] = s_add_password,
    [DKT_CMD_FIXED] = s_add_fixed,
};

static int s_add_args(s_run_t *run)
{
    for (size_t i = 0; run->row->params[i].option; i++) {
        const dkt_cmd_param_t *param = &run->row->params[i];
        if (!run->values[i] && param->variable && param->kind != DKT_CMD_PASSWORD) {
            run->values[i] = getenv(param->variable);
        }
        bool always = param->kind == DKT_CMD_PASSWORD || param->kind == DKT_CMD_FIXED;
        if (!run->values[i] && !always) {
            if (param->required) {
                return s_wrong_use("needed is --", param->option);
            }
            continue;
        }
        int status = s_add[param->kind](run, i);
        if (status != S_EXIT_DONE) {
            return status;
        }
    }
    return S_EXIT_DONE;
}

/* -- the call --------------------------------------------------------------------------------- */

dkt_status_t dkt_cmd_keys(const char *folder, dkt_cmd_keys_t *storage,
                          dkt_producer_options_t *options, dkt_err_t *err)
{
    dkt_curve_key_t server, client;
    dkt_status_t status = dkt_keys_curve(folder, "internal.pub", &server, err);
    if (status == DKT_OK) {
        status = dkt_keys_curve(folder, "internal-client.key", &client, err);
    }
    if (status != DKT_OK) {
        return status;
    }
    snprintf(storage->server_public, sizeof storage->server_public, "%s", server.public_key);
    snprintf(storage->client_public, sizeof storage->client_public, "%s", client.public_key);
    snprintf(storage->client_secret, sizeof storage->client_secret, "%s", client.secret_key);
    options->server_public_key = storage->server_public;
    options->client_public_key = storage->client_public;
    options->client_secret_key = storage->client_secret;
    return DKT_OK;
}

static const char *s_or_env(const char *given, const char *variable, const char *otherwise)
{
    const char *value = given ? given : getenv(variable);
    return value && value[0] ? value : otherwise;
}

static int s_options(const s_run_t *run, dkt_cmd_keys_t *keys, dkt_producer_options_t *options)
{
    dkt_err_t err;
    int64_t timeout_ms = 0;
    bool internal = run->row->internal;
    if (run->timeout_ms && (!s_number(run->timeout_ms, &timeout_ms) || timeout_ms < 1 ||
                            timeout_ms > S_TIMEOUT_MAX_MS)) {
        return s_wrong_use("not a time in ms: ", run->timeout_ms);
    }
    options->total_ms = (uint32_t)timeout_ms;
    options->endpoint = internal ? s_or_env(run->endpoint, "DOCKET_INTERNAL", S_INTERNAL_DEFAULT)
                                 : s_or_env(run->endpoint, "DOCKET_ENDPOINT", S_PUBLIC_DEFAULT);
    options->token = internal ? NULL : s_or_env(run->token, "DOCKET_TOKEN", NULL);
    const char *folder = s_or_env(run->keys, "DOCKET_KEYS", NULL);
    if (!internal || run->insecure) {
        return S_EXIT_DONE;
    }
    if (!folder) {
        return s_wrong_use("needed is --keys DIR", "");
    }
    if (dkt_cmd_keys(folder, keys, options, &err) != DKT_OK) {
        return s_wrong_use("keys: ", err.text);
    }
    return S_EXIT_DONE;
}

static void s_print_error(const s_run_t *run, const dkt_reply_t *reply)
{
    const char *code = reply->silence ? "silence" : dkt_status_code(reply->status);
    if (!run->json) {
        fprintf(stderr, "docket: %s%s%.*s: %.*s\n", code, reply->field.len ? ", field " : "",
                (int)reply->field.len, reply->field.data ? reply->field.data : "",
                (int)reply->message.len, reply->message.data ? reply->message.data : "");
        return;
    }
    printf("{\"error\": {\"code\": \"%s\", \"message\": ", code);
    dkt_json_text(stdout, reply->message.data, reply->message.data ? reply->message.len : 0);
    if (reply->field.len) {
        fputs(", \"field\": ", stdout);
        dkt_json_text(stdout, reply->field.data, reply->field.len);
    }
    puts("}}");
}

/* Answers that are no errors and still not what was asked for. */
static bool s_is_no(dkt_text_t state)
{
    static const char *const no[] = {"refused", "too_late", "expired", "taken"};
    for (size_t i = 0; i < sizeof no / sizeof no[0]; i++) {
        if (dkt_text_is(state, no[i])) {
            return true;
        }
    }
    return false;
}

static int s_print_reply(const s_run_t *run, const dkt_reply_t *reply)
{
    dkt_result_t result;
    if (reply->status != DKT_OK) {
        s_print_error(run, reply);
        return S_EXIT_FAILED;
    }
    bool no = s_is_no(reply->state);
    if (!dkt_result_init(&result, reply)) {
        fprintf(stderr, "docket: the answer cannot be read\n");
        no = true;
    } else if (run->json) {
        dkt_result_json(stdout, result.root);
        putchar('\n');
    } else if (dkt_text_is(reply->state, "refused")) {
        dkt_cmd_print_refusal(stdout, reply, result.root);
    } else if (no) {
        printf("%.*s\n", (int)reply->state.len, reply->state.data);
    } else {
        run->row->print(reply, result.root);
    }
    dkt_result_fini(&result);
    return no ? S_EXIT_FAILED : S_EXIT_DONE;
}

static int s_call(const s_run_t *run)
{
    dkt_err_t err;
    dkt_reply_t reply;
    dkt_uuid_t request_id;
    dkt_cmd_keys_t keys;
    dkt_producer_options_t options = {0};
    if (run->request_id &&
        !dkt_uuid_parse(run->request_id, (uint32_t)strlen(run->request_id), &request_id)) {
        return s_wrong_use("not a UUID: ", run->request_id);
    }
    int status = s_options(run, &keys, &options);
    if (status != S_EXIT_DONE) {
        return status;
    }
    dkt_producer_t *producer = dkt_producer_new(&options, &err);
    if (!producer) {
        return s_wrong_use("", err.text);
    }
    (void)dkt_producer_call(producer, run->row->method, run->args, run->arg_count,
                            run->request_id ? request_id.bytes : NULL, &reply);
    status = s_print_reply(run, &reply);
    dkt_producer_destroy(&producer);
    return status;
}

int dkt_cmd_run(const dkt_cmd_t *rows, size_t count, int argc, char **argv)
{
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        s_print_verbs(argc < 2 ? stderr : stdout, rows, count, argv[0]);
        return argc < 2 ? S_EXIT_USE : S_EXIT_DONE;
    }
    s_run_t run = {0};
    for (size_t i = 0; i < count; i++) {
        if (strcmp(argv[1], rows[i].verb) == 0) {
            run.row = &rows[i];
        }
    }
    if (!run.row) {
        s_print_verbs(stderr, rows, count, argv[0]);
        return S_EXIT_USE;
    }
    assert(run.row->method);
    int status = s_parse(&run, argc, argv);
    if (status == S_EXIT_DONE && run.help) {
        s_print_help(run.row, argv[0]);
        return S_EXIT_DONE;
    }
    if (status == S_EXIT_DONE) {
        status = s_add_args(&run);
    }
    if (status == S_EXIT_DONE) {
        status = s_call(&run);
    }
    free(run.file);
    explicit_bzero(run.secrets, sizeof run.secrets);
    return status;
}
