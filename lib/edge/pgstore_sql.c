/* SPDX-License-Identifier: Apache-2.0
 *
 * The statements of the libpq store. Every one that changes existing rows counts them and raises
 * DK003 if they are not exactly those of the batch. The session settings (pgstore.c) make the
 * planner use the indexes whatever the statistics say, so a generic plan made while the table was
 * empty stays right when it has millions of rows.
 */
#include "lib/edge/pgstore_self.h"

/* Columns of a ticket as dkt_pgstore_take_tickets reads them; `text` is subject and payload. */
#define S_TICKET(text)                                                                             \
    "select id, request_id, hold_nonce, class, slot_start, lane, deadline, state, breached, "      \
    "at_risk, created_at, dispatched_at, resolved_at, cancelled_at, " text " from tickets "
#define S_TICKET_COLUMNS 16

#define S_EXPECT(rows) "select docket_expect((select count(*) from u), cardinality(" rows "))"

/* -- activation -----------------------------------------------------------------------------------
 *
 * A new backend knows nothing: what these statements touch is what an activation costs. So they are
 * plain (the first call of a function in plpgsql loads and compiles for 1.2 ms, of one in SQL it
 * parses and plans its body again), times come as they are (the numeric arithmetic of docket_ms
 * costs a new backend 0.3 ms), and what a few rows can be sorted by is sorted here. */

/* The lock and the schema, which is known before anything is written. */
static const char s_lock[] =
    "select pg_try_advisory_lock(" DKT_PGSTORE_LOCK_KEY "), clock_timestamp(), "
    "max(version)::int8, max(min_reader)::int8 from schema_version";

/* Takeover, right after the lock, in a transaction of its own: its snapshot has whatever the last
 * holder committed. No row: a newer assignment exists. */
static const char s_take[] =
    "update owner o set epoch = o.epoch + 1, table_epoch = $1::int8, table_version = $2::int8, "
    "node = $3::text, incarnation = $4::text, since = clock_timestamp() "
    "where (o.table_epoch, o.table_version) <= ($1::int8, $2::int8) "
    "returning o.epoch, clock_timestamp(), "
    "(select at from journal order by seq desc limit 1), "
    "(select seq from journal order by seq desc limit 1), "
    "(select id from tickets order by id desc limit 1), "
    "(select h.body from handoff h where h.epoch = o.epoch - 1)";

static const char s_load_settings[] =
    "select s.resolvers, s.rebooking, a.name, a.sub_domain, a.password, a.tokens_valid_from, "
    "(select slot_start from tickets where lane is not null and state in (1, 2) "
    "and slot_start > now() - interval '1 day' order by slot_start desc limit 1), "
    "(select seq from changes order by seq desc limit 1) "
    "from settings s left join account a on true";

/* Where an open ticket stands (see the table `served`). The planner is to take the index by place
 * for it, and no other: nothing else stands in the condition that another one knows. */
#define S_OPEN "state = 0 and lane is not null and slot_start >= (select until from served) "

#define S_LISTED S_TICKET("subject, null::bytea")

/* Open ones are looked at all and sorted, whatever the page: nobody asks for them in a hurry. */
static const char s_list_open[] =
    "with found as materialized (select id as number from tickets where " S_OPEN ") " S_LISTED
    "where id = any (array(select number from found where number > $1::int8 "
    "order by number limit $2::int8)) order by id";

/* Rows are compared and sorted as the index by state has them: asked for an order by number alone,
 * the planner walks through all tickets when its statistics say that most are of this state. */
#define S_PAGE(from, to)                                                                           \
    "(" S_LISTED "where state > 0 and (state, breached, id) > (" from ") "                         \
    "and (state, breached, id) < (" to ") order by state, breached, id limit $2::int8)"

static const char s_list_state[] = "select * from ("                         //
    S_PAGE("$3::int2, false, $1::int8", "$3::int2, true, 0::int8")           //
    " union all "                                                            //
    S_PAGE("$3::int2, true, $1::int8", "$3::int2 + 1::int2, false, 0::int8") //
    ") as page order by id limit $2::int8";

static const char s_free[] =
    "with u as (update tickets t set state = f.state, lane = null, breached = f.breached, "
    "resolved_at = case f.state when 2 then f.at end, "
    "cancelled_at = case f.state when 3 then f.at end "
    "from unnest($1::int8[], $2::int2[], $3::timestamptz[], $4::bool[]) "
    "as f (id, state, at, breached) where t.id = f.id and t.state = 0 returning 1) " //
    S_EXPECT("$1::int8[]");

static const char s_park[] =
    "with u as (update tickets set lane = null where id = any ($1::int8[]) and state = 0 "
    "and lane is not null returning 1) " S_EXPECT("$1::int8[]");

/* A ticket that cannot keep its promise is flagged before it is placed past its deadline: the
 * constraint is checked row by row. */
static const char s_risk[] = "with u as (update tickets set at_risk = true where id = any "
                             "($1::int8[]) returning 1) " S_EXPECT("$1::int8[]");

static const char s_place[] =
    "with u as (update tickets t set slot_start = p.slot_start, lane = p.lane "
    "from unnest($1::int8[], $2::timestamptz[], $3::int2[]) as p (id, slot_start, lane) "
    "where t.id = p.id and t.state = 0 and t.lane is null returning 1) " S_EXPECT("$1::int8[]");

/* In the list and not after `from`, which would keep each of the columns in a table of its own
 * first: that was a tenth of a group of 256. */
static const char s_insert[] =
    "insert into tickets (id, request_id, hold_nonce, class, slot_start, lane, deadline, state, "
    "breached, at_risk, created_at, dispatched_at, resolved_at, cancelled_at, subject, payload) "
    "select unnest($1::int8[]), unnest($2::uuid[]), unnest($3::int8[]), unnest($4::text[]), "
    "unnest($5::timestamptz[]), unnest($6::int2[]), unnest($7::timestamptz[]), "
    "unnest($8::int2[]), unnest($9::bool[]), unnest($10::bool[]), unnest($11::timestamptz[]), "
    "unnest($12::timestamptz[]), unnest($13::timestamptz[]), unnest($14::timestamptz[]), "
    "unnest($15::text[]), unnest($16::bytea[])";

/* The common case, all of them plain new tickets: fewer columns to carry. */
static const char s_insert_open[] =
    "insert into tickets (id, request_id, hold_nonce, class, slot_start, lane, deadline, "
    "created_at, subject, payload, state, breached, at_risk) "
    "select unnest($1::int8[]), unnest($2::uuid[]), unnest($3::int8[]), unnest($4::text[]), "
    "unnest($5::timestamptz[]), unnest($6::int2[]), unnest($7::timestamptz[]), "
    "unnest($8::timestamptz[]), unnest($9::text[]), unnest($10::bytea[]), 0, false, false";

/* One of them: without arrays, which cost a lone request more than its row. */
static const char s_insert_one[] =
    "insert into tickets (id, request_id, hold_nonce, class, slot_start, lane, deadline, "
    "created_at, subject, payload, state, breached, at_risk) "
    "values ($1::int8, $2::uuid, $3::int8, $4::text, $5::timestamptz, $6::int2, "
    "$7::timestamptz, $8::timestamptz, $9::text, $10::bytea, 0, false, false)";

/* The function is the guard; what every group asks is asked of the plan itself, and only a group
 * that must not be written goes through the function, which raises why. */
static const char s_guard[] =
    "select case when (select true from owner where epoch = $1::int8 for share) "
    "and clock_timestamp() <= $2::timestamptz then clock_timestamp() "
    "else docket_guard($1::int8, $2::timestamptz) end";

static const char s_update[] =
    "with u as (update tickets t set state = n.state, breached = n.breached, "
    "at_risk = n.at_risk, dispatched_at = coalesce(n.dispatched_at, t.dispatched_at), "
    "resolved_at = coalesce(n.resolved_at, t.resolved_at) "
    "from unnest($1::int8[], $2::int2[], $3::bool[], $4::bool[], $5::timestamptz[], "
    "$6::timestamptz[]) as n (id, state, breached, at_risk, dispatched_at, resolved_at) "
    "where t.id = n.id and t.state <> 3 and t.state <= n.state returning 1) " //
    S_EXPECT("$1::int8[]");

static const char s_password[] =
    "with u as (update account set password = $1::text, tokens_valid_from = $2::timestamptz "
    "returning 1) select docket_expect((select count(*) from u), 1), "
    "docket_change('change_password', '{}')";

static const char s_handoff[] = "insert into handoff (epoch, body) values ($1::int8, $2::bytea) "
                                "on conflict (one) do update set epoch = excluded.epoch, "
                                "body = excluded.body";

/* Without a wait for the disk: what a crash forgets is published again. */
static const char s_relay_mark[] =
    "update relay set acked_seq = $1::int8, stream_created = $2::timestamptz, "
    "stream_seq = $3::int8 from owner where owner.epoch = $4::int8 "
    "and set_config('synchronous_commit', 'off', true) is not null";

/* -- age: each looks at the next $2 rows by number only, and drops those of them that are old --
 * Returned: how many went, the number that it came to, whether all it looked at were old, and how
 * many events went unpublished. Without a wait for the disk: what a crash brings back goes again.
 */

#define S_AGED(went)                                                                               \
    "select case when set_config('synchronous_commit', 'off', true) is not null then " went " end" \
    ", "
#define S_CAME_TO(number) "coalesce(max(" number "), 0), count(*) = $2::int8 and bool_and(old), "

/* A round's first step finds the first ticket that still has its id by bisection: they lose them in
 * the order of their numbers, and millions may be kept without. */
static const char s_age_request_ids[] =
    "with recursive search (low, high) as ("
    "select (select min(id) from tickets), (select max(id) from tickets) where $3::int8 = 0 "
    "union all "
    "select case when t.request_id is null then t.id + 1 else s.low end, "
    "case when t.request_id is null then s.high else (s.low + s.high) / 2 end "
    "from search s cross join lateral (select id, request_id from tickets "
    "where id >= (s.low + s.high) / 2 order by id limit 1) t where s.low < s.high), "
    "seen as materialized (select id, created_at < $1::timestamptz as old from tickets "
    "where id >= greatest($3::int8 + 1, (select max(low) from search)) "
    "order by id limit $2::int8), "
    "u as (update tickets t set request_id = null from seen "
    "where t.id = seen.id and seen.old and t.request_id is not null returning 1) " //
    S_AGED("(select count(*) from u)") S_CAME_TO("id") "0::int8 from seen";

/* An open ticket, or a dispatched one before its deadline, is in somebody's ledger and stays. */
static const char s_age_tickets[] =
    "with seen as materialized (select id, created_at < $1::timestamptz - "
    "make_interval(days => (select retention_days from settings)) as old from tickets "
    "where id > $3::int8 order by id limit $2::int8), "
    "d as (delete from tickets t using seen where t.id = seen.id and seen.old "
    "and (t.state > 1 or t.state = 1 and t.breached) "
    "and t.id <= (select max(id) from tickets) - $4::int8 returning 1) " //
    S_AGED("(select count(*) from d)") S_CAME_TO("id") "0::int8 from seen";

static const char s_age_journal[] =
    "with seen as materialized (select j.seq, j.seq > r.acked_seq as unpublished, "
    "j.at < case when j.seq > r.acked_seq then $5::timestamptz else $1::timestamptz end as old "
    "from (select seq, at from journal where seq > $3::int8 order by seq limit $2::int8) j, "
    "relay r), "
    "d as (delete from journal j using seen where j.seq = seen.seq and seen.old "
    "and j.seq <= (select max(seq) from journal) - $4::int8 returning seen.unpublished) " //
    S_AGED("(select count(*) from d)")
        S_CAME_TO("seq") "(select count(*) from d where unpublished) from seen";

/* And `served` moves on: to the first open ticket, or as far as was looked, or to an hour before
 * the newest journal row. */
static const char s_age_rest[] =
    "with t as (delete from revoked_tokens where token_id in (select token_id from revoked_tokens "
    "where expires_at < $1::timestamptz limit $2::int8) returning 1), "
    "h as (delete from handoff where epoch < $3::int8 returning 1), "
    "past as (select at - interval '1 hour' as at from journal order by seq desc limit 1), "
    "seen as materialized (select slot_start, state from tickets where lane is not null "
    "and slot_start >= (select until from served) and slot_start < (select at from past) "
    "order by slot_start, lane limit $4::int8), "
    "reach as (select coalesce(min(slot_start) filter (where state = 0), "
    "case when count(*) = $4::int8 then max(slot_start) else (select at from past) end) as at, "
    "count(*) = $4::int8 as part from seen), "
    "s as (update served set until = reach.at from reach where reach.at > until returning part) " //
    S_AGED("(select count(*) from t) + (select count(*) from h)")                                 //
    "0::int8, (select count(*) from t) = $2::int8 or exists (select from s where part), 0::int8";

#define S_ROW(name, text, columns, take) [DKT_SQL_##name] = {#name, text, columns, take}
/* Runs once in the life of a connection, so it is not prepared. */
#define S_ONCE(name, text, columns, take) [DKT_SQL_##name] = {NULL, text, columns, take}

const dkt_sql_row_t dkt_pgstore_sql[DKT_SQL_COUNT] = {
    S_ONCE(LOCK, s_lock, 4, dkt_pgstore_take_lock),
    S_ONCE(TAKE, s_take, 6, dkt_pgstore_take_take),
    S_ONCE(LOAD_SETTINGS, s_load_settings, 8, dkt_pgstore_take_settings),
    S_ONCE(LOAD_CLASSES, "select name, level_minutes, limit_permille from classes", 3,
           dkt_pgstore_take_classes),
    S_ONCE(LOAD_TICKETS,
           S_TICKET("null::text, null::bytea") "where " S_OPEN "union all " //
           S_TICKET("null::text, null::bytea") "where state = 1 and not breached",
           S_TICKET_COLUMNS, dkt_pgstore_take_tickets),
    S_ONCE(LOAD_REVOKED, "select token_id, expires_at from revoked_tokens where expires_at > now()",
           2, dkt_pgstore_take_revoked),
    S_ROW(READ_REQUESTS, S_TICKET("subject, payload") "where request_id = any ($1::uuid[])",
          S_TICKET_COLUMNS, dkt_pgstore_take_tickets),
    S_ROW(READ_NUMBERS, S_TICKET("subject, payload") "where id = any ($1::int8[])",
          S_TICKET_COLUMNS, dkt_pgstore_take_tickets),
    S_ROW(READ_NONCES,
          S_TICKET("subject, payload") "where hold_nonce = any ($1::int8[]) and "
                                       "hold_nonce is not null",
          S_TICKET_COLUMNS, dkt_pgstore_take_tickets),
    S_ROW(LIST_ALL,
          S_TICKET("subject, null::bytea") "where id > $1::int8 order by id limit $2::int8",
          S_TICKET_COLUMNS, dkt_pgstore_take_list),
    S_ROW(LIST_OPEN, s_list_open, S_TICKET_COLUMNS, dkt_pgstore_take_list),
    S_ROW(LIST_STATE, s_list_state, S_TICKET_COLUMNS, dkt_pgstore_take_list),
    S_ROW(GUARD, s_guard, 1, dkt_pgstore_take_guard),
    S_ROW(FREE, s_free, 0, NULL),
    S_ROW(PARK, s_park, 0, NULL),
    S_ROW(RISK, s_risk, 0, NULL),
    S_ROW(PLACE, s_place, 0, NULL),
    S_ROW(INSERT, s_insert, 0, NULL),
    S_ROW(INSERT_OPEN, s_insert_open, 0, NULL),
    S_ROW(INSERT_ONE, s_insert_one, 0, NULL),
    S_ROW(UPDATE, s_update, 0, NULL),
    S_ROW(JOURNAL,
          "insert into journal (seq, epoch, at, events) "
          "values ($1::int8, $2::int8, $3::timestamptz, $4::bytea)",
          0, NULL),
    S_ROW(SETTINGS,
          "select docket_settings($1::int2, $2::bool, $3::text[], $4::int2[], $5::int2[])", 0,
          NULL),
    S_ROW(PASSWORD, s_password, 0, NULL),
    S_ROW(REVOKE,
          "insert into revoked_tokens (token_id, expires_at) "
          "values ($1::bytea, $2::timestamptz) on conflict do nothing",
          0, NULL),
    S_ROW(HANDOFF, s_handoff, 0, NULL),
    S_ROW(AGE_REQUEST_IDS, s_age_request_ids, 4, dkt_pgstore_take_aged),
    S_ROW(AGE_TICKETS, s_age_tickets, 4, dkt_pgstore_take_aged),
    S_ROW(AGE_JOURNAL, s_age_journal, 4, dkt_pgstore_take_aged),
    S_ROW(AGE_REST, s_age_rest, 4, dkt_pgstore_take_aged),
    S_ROW(RELAY_KEPT, "select acked_seq, stream_created, stream_seq from relay", 3,
          dkt_pgstore_take_kept),
    S_ROW(RELAY_ROWS,
          "select seq, events from journal where seq > coalesce($1::int8, "
          "(select acked_seq from relay)) order by seq limit $2::int8",
          2, dkt_pgstore_take_journal),
    S_ROW(RELAY_MARK, s_relay_mark, 0, NULL),
    S_ROW(MIGRATE_TIME, "select set_config('statement_timeout', $1::int8::text, true)", 0, NULL),
    S_ROW(MIGRATE, "select version, db_ms, code, error from docket_migrate($1::int8, $2::int8)", 4,
          dkt_pgstore_take_migrate),
};
