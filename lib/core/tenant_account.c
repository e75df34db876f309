/* SPDX-License-Identifier: Apache-2.0
 *
 * Login, logout, passwords and settings: they run in the tenant's owner, because only the owner
 * knows what is revoked and what is promised. Hashing happens elsewhere; logout and set_tenant each
 * get a group of their own.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/core/grow.h"
#include "lib/core/tenant_impl.h"

#define MS_PER_S 1000

/* -- password jobs -- */

/* Sends a job for the record; false: the hashing queue is full. */
static bool s_hash(dkt_tenant_t *self, dkt_hashing_t *hashing, dkt_hash_kind_t kind,
                   dkt_view_t password)
{
    dkt_hash_job_t job = {.kind = kind, .cookie = ++self->cookie_next};
    hashing->cookie = job.cookie;
    if (kind == DKT_HASH_VERIFY) {
        hashing->passwords_seen = self->passwords_set;
    }
    job.password_len = password.len;
    assert(password.len < sizeof job.password);
    memcpy(job.password, password.data, password.len);
    if (kind == DKT_HASH_VERIFY) {
        memcpy(job.hash, self->account_password, sizeof job.hash);
    }
    return self->port.hash(self->port.ctx, &job);
}

static void s_put_hashing(dkt_tenant_t *self, dkt_hashing_t *hashing)
{
    hashing->next = self->hashing;
    self->hashing = hashing;
    self->hashing_count++;
}

/* Starts with checking the password, whatever the method is; takes the work. */
static void s_verify(dkt_tenant_t *self, dkt_call_t *call)
{
    if (call->request.password.len > DKT_PASSWORD_CHARS_MAX * 4) {
        dkt_tenant_error_of(self, call->work, DKT_UNAUTHENTICATED,
                            NULL); /* longer than any real one */
        return;
    }
    dkt_hashing_t *hashing =
        self->hashing_count < DKT_HASHING_PER_TENANT_MAX ? calloc(1, sizeof *hashing) : NULL;
    if (!hashing || !s_hash(self, hashing, DKT_HASH_VERIFY, call->request.password)) {
        free(hashing);
        dkt_tenant_error_of(self, call->work, DKT_RATE_LIMITED, NULL);
        return;
    }
    hashing->work = call->work;
    s_put_hashing(self, hashing);
}

void dkt_tenant_login(dkt_tenant_t *self, dkt_call_t *call)
{
    s_verify(self, call);
}

void dkt_tenant_change_password(dkt_tenant_t *self, dkt_call_t *call)
{
    s_verify(self, call);
}

static dkt_hashing_t *s_take_hashing(dkt_tenant_t *self, uint64_t cookie)
{
    for (dkt_hashing_t **link = &self->hashing; *link; link = &(*link)->next) {
        dkt_hashing_t *hashing = *link;
        if (hashing->cookie == cookie) {
            *link = hashing->next;
            self->hashing_count--;
            return hashing;
        }
    }
    return NULL;
}

static int64_t s_whole_second_ms(int64_t ms)
{
    return ms / MS_PER_S * MS_PER_S;
}

/* A token says whole seconds. One issued in the second of a password change must not look older
 * than the change, so it is issued in the next. */
static void s_logged_in(dkt_tenant_t *self, dkt_call_t *call)
{
    dkt_claims_t claims = {.client = self->config.client,
                           .issued_ms = s_whole_second_ms(self->now_ms)};
    if (claims.issued_ms <= self->tokens_valid_from_ms) {
        claims.issued_ms = s_whole_second_ms(self->tokens_valid_from_ms) + MS_PER_S;
    }
    claims.expires_ms = claims.issued_ms + self->config.token_ttl_ms;
    self->port.random(self->port.ctx, claims.token_id, sizeof claims.token_id);
    char token[DKT_TOKEN_BYTES_MAX];
    dkt_token_sign(self->config.token_key, &claims, token);
    uint8_t bytes[DKT_ANSWER_BYTES_MAX];
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    dkt_answer_begin(&w, call->request.msgid, 4);
    dkt_w_cstr(&w, "status");
    dkt_w_cstr(&w, "ok");
    dkt_w_cstr(&w, "sub_domain");
    dkt_w_cstr(&w, self->sub_domain);
    dkt_w_cstr(&w, "token");
    dkt_w_cstr(&w, token);
    dkt_w_cstr(&w, "expires_ms");
    dkt_w_int(&w, claims.expires_ms);
    assert(!w.failed);
    dkt_tenant_attach(self, call->work, bytes, w.len); /* its password may not be durable yet */
}

/* Tokens issued up to this moment die with a change. A login in the second of the last change was
 * given the next one (above), so a second change in that second has to reach that far. */
static int64_t s_issued_until_ms(const dkt_tenant_t *self)
{
    int64_t now_ms = s_whole_second_ms(self->now_ms);
    int64_t before_ms = s_whole_second_ms(self->tokens_valid_from_ms);
    return now_ms > before_ms ? now_ms : before_ms + MS_PER_S;
}

/* The new password goes into the gathering group, and every token issued until now dies with it. */
static void s_password_changed(dkt_tenant_t *self, dkt_call_t *call, const char *hash)
{
    dkt_group_t *group = self->gathering;
    if (group->has_password || group->solo) {
        dkt_tenant_error_of(self, call->work, DKT_UNAVAILABLE, NULL);
        return;
    }
    group->has_password = true;
    memcpy(group->account_password, hash, sizeof group->account_password);
    group->tokens_valid_from_ms = s_issued_until_ms(self);
    memcpy(self->account_password, hash, sizeof self->account_password);
    self->passwords_set++;
    self->tokens_valid_from_ms = group->tokens_valid_from_ms;
    uint8_t bytes[DKT_ANSWER_BYTES_MAX];
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    dkt_answer_status(&w, call->request.msgid, "ok");
    dkt_tenant_decided(self, call, DKT_MEMO_NONE, &w);
}

/* The old password was right: hash the new one. */
static void s_hash_new(dkt_tenant_t *self, dkt_call_t *call, dkt_hashing_t *hashing)
{
    s_put_hashing(self, hashing);
    if (!s_hash(self, hashing, DKT_HASH_CREATE, call->request.new_password)) {
        dkt_hashing_t *taken = s_take_hashing(self, hashing->cookie);
        assert(taken == hashing);
        free(taken);
        dkt_tenant_error_of(self, call->work, DKT_RATE_LIMITED, NULL);
    }
}

void dkt_tenant_on_hashed(dkt_tenant_t *self, const dkt_hash_job_t *job)
{
    dkt_hashing_t *hashing = s_take_hashing(self, job->cookie);
    if (!hashing) {
        return;
    }
    dkt_call_t call;
    if (!dkt_tenant_open(self, hashing->work, &call)) {
        free(hashing);
        return;
    }
    if (call.work->deadline_mono_ms <= self->mono_ms) {
        dkt_tenant_error_of(self, call.work, DKT_DEADLINE_EXCEEDED, NULL);
    } else if (hashing->passwords_seen != self->passwords_set) {
        s_verify(self, &call); /* against a password that has been replaced since: again */
    } else if (!job->ok && job->kind == DKT_HASH_VERIFY) {
        dkt_tenant_attach_error(self, &call, DKT_UNAUTHENTICATED, NULL);
    } else if (!job->ok) {
        dkt_tenant_error_of(self, call.work, DKT_OVERLOADED, NULL);
    } else if (call.request.method == DKT_METHOD_LOGIN) {
        s_logged_in(self, &call);
    } else if (job->kind == DKT_HASH_VERIFY) {
        s_hash_new(self, &call, hashing);
        return;
    } else {
        s_password_changed(self, &call, job->hash);
    }
    free(hashing);
}

/* -- logout -- */

void dkt_tenant_logout(dkt_tenant_t *self, dkt_call_t *call)
{
    if (call->work->origin != DKT_AUDIENCE_PUBLIC) {
        /* The internal endpoint ignores tokens, so there is none that could die. */
        dkt_tenant_error_of(self, call->work, DKT_INVALID_ARGUMENT, "token");
        return;
    }
    if (dkt_tenant_to_solo(self, call)) {
        return;
    }
    dkt_group_t *group = self->gathering;
    if (!dkt_revoked_add(&self->revoked, call->work->token_id, call->work->token_expires_ms,
                         self->now_ms)) {
        dkt_tenant_error_of(self, call->work, DKT_OVERLOADED, NULL);
        return;
    }
    group->has_revoked = true;
    memcpy(group->revoke_token_id, call->work->token_id, DKT_TOKEN_ID_BYTES);
    group->revoke_expires_ms = call->work->token_expires_ms;
    uint8_t bytes[DKT_ANSWER_BYTES_MAX];
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    dkt_answer_status(&w, call->request.msgid, "ok");
    dkt_tenant_decided(self, call, DKT_MEMO_NONE, &w);
}

/* -- settings -- */

static uint16_t s_limit_of(const dkt_settings_t *settings, const char *name)
{
    int i = dkt_settings_class(settings, name, (uint32_t)strlen(name));
    return i < 0 ? DKT_PERMILLE : settings->classes[i].limit_permille;
}

/* The settings as the request wants them; false and a field if they make no sense. */
static bool s_wanted(const dkt_settings_t *now, const dkt_request_t *request,
                     dkt_settings_t *wanted, dkt_err_t *err)
{
    *wanted = *now;
    if (request->present & DKT_PARAM_BIT(RESOLVERS)) {
        wanted->resolvers = request->resolvers;
    }
    if (request->present & DKT_PARAM_BIT(REBOOKING)) {
        wanted->rebooking = request->rebooking;
    }
    if (request->present & DKT_PARAM_BIT(CLASSES)) {
        memset(wanted->classes, 0, sizeof wanted->classes);
        wanted->class_count = request->class_count;
        for (uint8_t i = 0; i < request->class_count; i++) {
            memcpy(wanted->classes[i].name, request->classes[i].name,
                   sizeof wanted->classes[i].name);
            wanted->classes[i].level_minutes = request->classes[i].value;
            wanted->classes[i].limit_permille = s_limit_of(now, request->classes[i].name);
        }
    }
    bool limits = (request->present & DKT_PARAM_BIT(LIMITS)) != 0;
    /* The map replaces all limits, as the map of classes does: an empty one takes them away. */
    for (uint8_t i = 0; limits && i < wanted->class_count; i++) {
        wanted->classes[i].limit_permille = DKT_PERMILLE;
    }
    for (uint8_t i = 0; limits && i < request->limit_count; i++) {
        const char *name = request->limits[i].name;
        int class_index = dkt_settings_class(wanted, name, (uint32_t)strlen(name));
        if (class_index < 0) {
            dkt_fail(err, DKT_INVALID_ARGUMENT, "limits", "there is no class %s", name);
            return false;
        }
        wanted->classes[class_index].limit_permille = request->limits[i].value;
    }
    return dkt_settings_check(wanted, err) == DKT_OK;
}

static bool s_same(const dkt_settings_t *a, const dkt_settings_t *b)
{
    bool same = a->resolvers == b->resolvers && a->rebooking == b->rebooking &&
                a->class_count == b->class_count;
    for (uint8_t i = 0; same && i < a->class_count; i++) {
        same = strcmp(a->classes[i].name, b->classes[i].name) == 0 &&
               a->classes[i].level_minutes == b->classes[i].level_minutes &&
               a->classes[i].limit_permille == b->classes[i].limit_permille;
    }
    return same;
}

typedef struct {
    dkt_change_t *changes;
    uint32_t count, max;
    bool failed;
} s_changes_t;

static void s_note_change(void *ctx, const dkt_change_t *change)
{
    s_changes_t *self = ctx;
    if (!dkt_grow((void **)&self->changes, &self->max, self->count + 1, sizeof *self->changes)) {
        self->failed = true;
        return;
    }
    self->changes[self->count++] = *change;
}

static void s_blocked(dkt_tenant_t *self, dkt_call_t *call, const uint64_t *blockers,
                      uint32_t blocker_count)
{
    enum { ANSWER_BYTES = DKT_ANSWER_BYTES_MAX + DKT_BLOCKERS_MAX * (DKT_ID_CHARS_MAX + 2) };
    uint8_t bytes[ANSWER_BYTES];
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    uint32_t named = blocker_count < DKT_BLOCKERS_MAX ? blocker_count : DKT_BLOCKERS_MAX;
    dkt_answer_begin(&w, call->request.msgid, 3);
    dkt_w_cstr(&w, "status");
    dkt_w_cstr(&w, "refused");
    dkt_w_cstr(&w, "count");
    dkt_w_uint(&w, blocker_count);
    dkt_w_cstr(&w, "tickets");
    dkt_w_array(&w, named);
    for (uint32_t i = 0; i < named; i++) {
        dkt_id_text_t ticket_id;
        dkt_ticket_text(self->config.id_keys, &self->config.client, blockers[i], &ticket_id);
        dkt_w_cstr(&w, ticket_id.text);
    }
    assert(!w.failed);
    dkt_tenant_fenced(self, call->work, bytes, w.len);
}

/* The ledger has the new settings: they and the moves they caused become one group. */
static void s_resized(dkt_tenant_t *self, dkt_call_t *call, const dkt_settings_t *wanted,
                      const s_changes_t *changes)
{
    /* Only now: a change names its class by index into the new settings. */
    for (uint32_t i = 0; i < changes->count; i++) {
        dkt_tenant_change(self, &changes->changes[i]);
    }
    if (changes->failed) {
        dkt_tenant_fail(self, "no memory for the moves of a resize");
    }
    dkt_memo_forget_refusals(&self->memo);
    self->gathering->has_settings = true;
    self->gathering->settings = *wanted;
    uint8_t bytes[DKT_ANSWER_BYTES_MAX];
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    dkt_answer_status(&w, call->request.msgid, "ok");
    dkt_tenant_decided(self, call, DKT_MEMO_NONE, &w);
}

void dkt_tenant_set_tenant(dkt_tenant_t *self, dkt_call_t *call)
{
    const uint32_t ours = DKT_PARAM_BIT(RESOLVERS) | DKT_PARAM_BIT(CLASSES) |
                          DKT_PARAM_BIT(REBOOKING) | DKT_PARAM_BIT(LIMITS);
    if (!(call->request.present & ours)) {
        dkt_tenant_fenced_status(self, call, "ok"); /* `suspended` was the directory's to set */
        return;
    }
    if (dkt_tenant_to_solo(self, call)) {
        return;
    }
    dkt_settings_t wanted;
    dkt_err_t err = {0};
    if (!s_wanted(dkt_ledger_settings(self->ledger), &call->request, &wanted, &err)) {
        dkt_tenant_error(self, call->work, &err);
        return;
    }
    if (s_same(dkt_ledger_settings(self->ledger), &wanted)) {
        dkt_tenant_fenced_status(self, call, "ok"); /* nothing changes: nothing to write or audit */
        return;
    }
    uint64_t blockers[DKT_BLOCKERS_MAX];
    uint32_t blocker_count = 0;
    s_changes_t changes = {0};
    dkt_status_t status = dkt_ledger_resize(&self->ledger, self->now_ms, &wanted, s_note_change,
                                            &changes, blockers, DKT_BLOCKERS_MAX, &blocker_count);
    if (status == DKT_OK) {
        s_resized(self, call, &wanted, &changes);
    } else if (status == DKT_CONFLICT) {
        s_blocked(self, call, blockers, blocker_count);
    } else {
        dkt_tenant_error_of(self, call->work, DKT_OVERLOADED, NULL);
    }
    free(changes.changes);
}
