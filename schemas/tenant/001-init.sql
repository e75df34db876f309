-- SPDX-License-Identifier: Apache-2.0
-- min_reader: 1
-- kind: expand
--
-- Tenant database, step 1.
--
-- The administrator runs this once in the template database `docket_template`, in one transaction
-- (psql -1 -v ON_ERROR_STOP=1 -f, or one PQexec). Every tenant's database is a copy of it. All
-- rights go to the group role `docket_tenant`; a tenant's own login role is a member of it.
-- Database privileges are not copied from a template, so whoever copies it also runs
--     revoke all on database NAME from public; grant connect on database NAME to ROLE;
-- which is what keeps a tenant out of every other tenant's database.
--
-- Times are timestamptz; the code speaks milliseconds since the Unix epoch. Ticket states are
-- 0 open, 1 dispatched, 2 resolved, 3 cancelled (dkt_ticket_state_t).

do $$
begin
    if not exists (select from pg_roles where rolname = 'docket_tenant') then
        create role docket_tenant nologin;
    end if;
end $$;

revoke all on schema public from public;
grant usage on schema public to docket_tenant;

-- -- tables ---------------------------------------------------------------------------------------

create table schema_version (
    version    int primary key,
    min_reader int not null,           -- the oldest code that understands this schema
    applied_at timestamptz not null default now()
);
insert into schema_version (version, min_reader) values (1, 1);

-- Who may write. One row; every group checks the epoch (docket_guard), every takeover raises it.
create table owner (
    one           boolean primary key default true check (one),
    epoch         bigint not null default 0,
    table_epoch   bigint not null default 0,
    table_version bigint not null default 0,
    node          text not null default '',
    incarnation   text not null default '',
    since         timestamptz not null default now()
);
insert into owner default values;

create table settings (
    one            boolean primary key default true check (one),
    resolvers      smallint not null default 1 check (resolvers between 1 and 4096),
    rebooking      boolean not null default true,
    retention_days int not null default 400 check (retention_days >= 3)
);
insert into settings default values;

create table classes (
    name           text primary key check (octet_length(name) between 1 and 31),
    level_minutes  smallint not null check (level_minutes between 2 and 1440),
    limit_permille smallint not null default 1000 check (limit_permille between 0 and 1000)
);
insert into classes (name, level_minutes) values ('gold', 120), ('silver', 240), ('bronze', 480);

-- Written by the account saga, changed by the owner (change_password). No row in the template.
create table account (
    one               boolean primary key default true check (one),
    name              text not null,
    email             text not null,
    sub_domain        text not null,
    password          text not null,   -- argon2id string
    tokens_valid_from timestamptz not null default 'epoch' -- tokens issued before are dead
);

create table revoked_tokens (
    token_id   bytea primary key check (octet_length(token_id) = 16),
    expires_at timestamptz not null
);

-- How far the journal was published: the contiguous acknowledged prefix, and on which stream.
create table relay (
    one            boolean primary key default true check (one),
    acked_seq      bigint not null default 0,
    stream_created timestamptz,
    stream_seq     bigint not null default 0
);
insert into relay default values;

-- What a planned handoff leaves for the successor, who uses it iff epoch is its own minus one.
create table handoff (
    one   boolean primary key default true check (one),
    epoch bigint not null,
    body  bytea not null
);

-- What must hold in every row of tickets, whatever the code does. Of a domain and not of the table,
-- because a session keeps the checks of a domain, while it parses and plans those of a table anew
-- for every statement: that was a quarter of the time of a lone insert.
-- deadline = created + level: the level itself is not stored (settings may change); what is checked
-- is that it is a level at all, a whole number of minutes from 2 to 1440.
create type ticket_facts as (
    slot_start timestamptz, deadline timestamptz, created_at timestamptz,
    state smallint, lane smallint, at_risk boolean, -- what is often null stands behind
    dispatched_at timestamptz, resolved_at timestamptz, cancelled_at timestamptz
);
create domain ticket_checked as ticket_facts
    constraint tickets_minute check (
        date_bin('1 minute', (value).slot_start, 'epoch') = (value).slot_start)
    constraint tickets_promise check (
        (value).deadline - (value).slot_start >= '1 minute'::interval or (value).at_risk)
    constraint tickets_level check (
        (value).deadline - (value).created_at
            between '2 minutes'::interval and '1440 minutes'::interval
        and date_bin('1 minute', (value).deadline, (value).created_at) = (value).deadline)
    constraint tickets_lane check ((value).lane between 0 and 4095)
    -- The state that the times say; 65536 is none. Every statement looks up and initializes each
    -- function that a check calls: so one comparison and tests for null, not a case by state.
    constraint tickets_state check ((value).state = case
        when (value).cancelled_at is not null then case
            when coalesce((value).dispatched_at, (value).resolved_at) is null
                and (value).lane is null then 3 else 65536 end
        when (value).resolved_at is not null then 2
        when (value).dispatched_at is not null then 1
        else 0 end);

-- A ticket has a lane from its insert on, until it is cancelled or resolved before its minute; rows
-- that a group moves are parked (lane null) inside its transaction only. So `lane is not null` is
-- "not cancelled" for the unique index, and it keeps state out of the index predicate.
create table tickets (
    id            bigint not null,
    hold_nonce    bigint,              -- null: created without a hold
    slot_start    timestamptz not null,
    deadline      timestamptz not null,
    created_at    timestamptz not null,
    dispatched_at timestamptz,
    resolved_at   timestamptz,
    cancelled_at  timestamptz,
    lane          smallint,
    state         smallint not null,
    breached      boolean not null,
    at_risk       boolean not null,
    request_id    uuid,                -- null once retention removed it
    class         text not null,
    subject       text,
    payload       bytea compression lz4,
    constraint tickets_pk primary key (id),
    constraint tickets_checked check (
        row(slot_start, deadline, created_at, state, lane, at_risk, dispatched_at, resolved_at,
            cancelled_at)::ticket_checked is distinct from null)
);
create unique index tickets_request on tickets (request_id);
create unique index tickets_nonce on tickets (hold_nonce) where hold_nonce is not null;
-- The database itself refuses a double booking.
create unique index tickets_place on tickets (slot_start, lane) where lane is not null;
-- For the load at activation (dispatched and not breached) and for lists by state. A new ticket is
-- open and not in here, which spares every insert an index: `served` tells where the open ones are.
create index tickets_state on tickets (state, breached, id) where state > 0;

-- No ticket that stands before `until` is open, and none ever will be. That holds because
--   - the owner moves it over tickets that it sees are not open, which they never become again;
--   - it never comes closer than an hour to the newest journal row, and no owner books or moves a
--     ticket to a minute before that row: its clock starts there and only goes forward.
-- So an open ticket is found from here on at any age, and what must be looked at is what was placed
-- since then: a lane has one ticket a minute. One that nobody served holds `until` where it stands.
create table served (
    one   boolean primary key default true check (one),
    until timestamptz not null default '-infinity'
);
insert into served default values;

-- One row per group that changed something. Retention always keeps the newest row, here and in
-- tickets: the next owner continues their numbers.
create table journal (
    seq    bigint primary key,
    epoch  bigint not null,
    at     timestamptz not null,
    events bytea compression lz4 not null -- msgpack
);

-- What of the tenant's context was changed, for the audit log and the copy in the control database.
-- Written with the change itself; whoever carries rows over remembers the last one there.
create table changes (
    seq    bigint primary key,
    at     timestamptz not null default clock_timestamp(),
    action text not null check (action in ('set_tenant', 'change_password')),
    detail jsonb not null
);

-- -- functions ------------------------------------------------------------------------------------

create function docket_ms(t timestamptz) returns bigint
language sql stable parallel safe as $$ select floor(extract(epoch from t) * 1000)::bigint $$;

-- The first minute that is still open to booking: it starts at least 2 s from then.
create function docket_first_minute(t timestamptz) returns timestamptz
language sql stable parallel safe as
$$ select date_bin('1 minute', t + interval '61.999999 s', 'epoch') $$;

-- 0 .. n - 1. A function for its estimate: with the 1,000 rows that generate_series is taken to
-- return, the planner thinks the view below worth 300 ms of just-in-time compilation.
create function docket_lanes(p_count smallint) returns setof smallint
language plpgsql immutable parallel safe rows 4 as $$
begin
    return query select generate_series(0, p_count - 1)::smallint;
end $$;

-- First statement of every group. Raises DK001 when a newer owner has taken over, DK002 when the
-- database's clock is past the earliest slot the group books. Returns that clock. FOR SHARE makes a
-- takeover wait for the group, and it makes even a bare guard a transaction with a commit record:
-- on a replicated cluster its answer proves that this is still the primary.
create function docket_guard(p_epoch bigint, p_not_after timestamptz) returns timestamptz
language plpgsql as $$
declare
    v_now timestamptz;
begin
    perform 1 from owner where epoch = p_epoch for share;
    if not found then
        raise exception 'epoch % is over', p_epoch using errcode = 'DK001';
    end if;
    v_now := clock_timestamp();
    if v_now > p_not_after then
        raise exception 'the clock is % ms past the earliest slot of the group',
            docket_ms(v_now) - docket_ms(p_not_after) using errcode = 'DK002';
    end if;
    return v_now;
end $$;

-- Fails the transaction when a statement did not touch exactly the rows it names: after the commit
-- it would be too late to notice.
create function docket_expect(p_actual bigint, p_expected bigint) returns bigint
language plpgsql as $$
begin
    if p_actual is distinct from p_expected then
        raise exception '% rows instead of %', p_actual, p_expected using errcode = 'DK003';
    end if;
    return p_actual;
end $$;

-- The owner's lock, on a fixed key ("docket" in ASCII). When somebody else has it, `holder` is the
-- application_name of that session: docket/NODE/INCARNATION.
create function docket_lock(out locked boolean, out holder text)
language plpgsql as $$
begin
    locked := pg_try_advisory_lock(110429572130164);
    if not locked then
        select a.application_name into holder
        from pg_locks k join pg_stat_activity a on a.pid = k.pid
        where k.locktype = 'advisory' and k.granted and a.datname = current_database()
            and k.database = a.datid and k.objsubid = 1
            and (k.classid::bigint << 32 | k.objid::bigint) = 110429572130164;
    end if;
end $$;

-- Ends the session that holds the owner's lock, if it is older than this one and still bears that
-- name. Returns how many were told to end; the lock is free some milliseconds later.
create function docket_evict(p_holder text) returns bigint
language sql as $$
    select count(*) filter (where pg_terminate_backend(a.pid))
    from pg_locks k join pg_stat_activity a on a.pid = k.pid
    where k.locktype = 'advisory' and k.granted and a.datname = current_database()
        and k.database = a.datid and k.objsubid = 1
        and (k.classid::bigint << 32 | k.objid::bigint) = 110429572130164
        and a.application_name = p_holder and a.pid <> pg_backend_pid()
        and a.backend_start <= (select backend_start from pg_stat_activity
                                where pid = pg_backend_pid())
$$;

-- The newest 1,000 stay.
create function docket_change(p_action text, p_detail jsonb) returns bigint
language plpgsql as $$
declare
    v_seq bigint;
begin
    insert into changes (seq, action, detail)
    select coalesce(max(seq), 0) + 1, p_action, p_detail from changes returning seq into v_seq;
    delete from changes where seq <= v_seq - 1000;
    return v_seq;
end $$;

create function docket_settings(p_resolvers smallint, p_rebooking boolean, p_names text[],
                                p_levels smallint[], p_limits smallint[]) returns bigint
language plpgsql as $$
declare
    v_count bigint;
begin
    update settings set resolvers = p_resolvers, rebooking = p_rebooking;
    get diagnostics v_count = row_count;
    delete from classes;
    insert into classes (name, level_minutes, limit_permille)
    select * from unnest(p_names, p_levels, p_limits);
    perform docket_change('set_tenant', jsonb_build_object(
        'resolvers', p_resolvers, 'rebooking', p_rebooking,
        'classes', (select jsonb_object_agg(name, level_minutes) from classes),
        'limits', (select coalesce(jsonb_object_agg(name, limit_permille), '{}') from classes
                   where limit_permille < 1000)));
    return docket_expect(v_count, 1);
end $$;

-- -- the mission's query --------------------------------------------------------------------------
--
--     select min(time) from slots
--     where available = 'available' and time > now() and time < now() + interval '2 h'
--
-- A row for each minute and lane that is still open to booking: from the first minute that starts
-- at least 2 s from now (the one that is closing is hidden) to the last one that ends within the
-- longest class. For a class with level L the ledger wants start + 60 s <= now + L where the query
-- says start < now + L: exactly one minute more, the last, is in the query's window. It names the
-- same minute as the ledger whenever the ledger finds a free one (smaller minutes are the same for
-- both); when it names that last minute the ledger has none and rebooks or refuses, because a
-- ticket there would begin but not end in time. Holds live in memory and are not seen here.
create view slots as
select m.time, l.lane,
    case when t.lane is null then 'available' else 'booked' end as available
from (select s.resolvers, (select max(c.level_minutes) from classes c) as horizon from settings s) h
    cross join lateral generate_series(
        docket_first_minute(now()), now() + make_interval(mins => h.horizon - 1),
        interval '1 minute') as m (time)
    cross join lateral docket_lanes(h.resolvers) as l (lane)
    left join (select slot_start, lane from tickets
               where lane is not null and slot_start >= now()) t
        on t.slot_start = m.time and t.lane = l.lane;

-- -- rights ---------------------------------------------------------------------------------------

revoke all on all tables in schema public from public;
revoke all on all functions in schema public from public;
grant select on schema_version, slots to docket_tenant;
grant select, update on owner, settings, relay, served to docket_tenant;
grant select, insert, update on account to docket_tenant;
grant select, insert, delete on classes, changes, journal, revoked_tokens to docket_tenant;
grant select, insert, update, delete on tickets, handoff to docket_tenant;
grant execute on all functions in schema public to docket_tenant;
