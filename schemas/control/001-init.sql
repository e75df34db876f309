-- SPDX-License-Identifier: Apache-2.0
--
-- Control database, step 1. min_reader: 1.
--
-- The control database: who the tenants are, where they live, which worker incarnation owns which
-- vshard. Only docket's administrator role reaches it; tenants' roles never do.

revoke all on schema public from public;

create table schema_version (
    version    int primary key,
    min_reader int not null, -- the oldest code that understands this schema
    applied_at timestamptz not null default now()
);
insert into schema_version (version, min_reader) values (1, 1);

-- Where tenant databases can be placed. Host and port are those of the cluster's direct address.
create table clusters (
    name            text primary key check (name ~ '^[a-z0-9_-]{1,32}$'),
    host            text not null,
    port            integer not null check (port between 1 and 65535),
    weight          integer not null default 100 check (weight >= 0),
    connections_max integer not null default 1000 check (connections_max > 0)
);

-- One row per account. `claimed`: it has a database, its account may not be in there yet.
-- `deleting`: it exists for nobody but whoever deletes it. `changes_seq`: the last row of its
-- database's table `changes` that is in the audit log (and in `settings`, if it was one of those).
-- `password` is the argon2id text and lives here only until the tenant's own database has it.
create table tenants (
    client_id  text primary key check (client_id ~ '^cl_[A-Za-z0-9_-]{16}$'),
    request_id uuid not null unique,
    name       text not null,
    email      text not null,
    sub_domain text not null unique check (sub_domain ~ '^[a-z0-9][a-z0-9-]{0,61}[a-z0-9]$'),
    resolvers  integer not null check (resolvers between 1 and 64),
    cluster    text not null references clusters (name),
    database   text not null unique check (database ~ '^t_[0-9a-f]{32}$'),
    state      text not null check (state in ('claimed', 'active', 'deleting')),
    suspended  boolean not null default false,
    password   text check (state = 'claimed' or password is null),
    settings   jsonb not null,
    revision   bigint not null default 1,
    changes_seq bigint not null default 0,
    created_at timestamptz not null default clock_timestamp()
);
create unique index tenants_email on tenants (lower(email));
create index tenants_unfinished on tenants (created_at) where state <> 'active';

-- Deletions under way, and those that were refused. `draining`: the owner is to end, then the rows
-- are counted under its lock. `fenced`: nobody can own the database any more; it is dropped as soon
-- as the export, if one was asked for, is known by the hash of its manifest.
create table deletions (
    client_id     text primary key references tenants (client_id) on delete cascade,
    phase         text not null check (phase in ('draining', 'fenced', 'refused')),
    actor         text not null,
    asked_at      timestamptz not null default clock_timestamp(),
    open_allowed  boolean not null, -- even with promises that nobody will keep
    export_wanted boolean not null,
    manifest      text check (manifest ~ '^[0-9a-f]{64}$'),
    counts        jsonb check (phase <> 'fenced' or counts is not null) -- rows, and open tickets
);

-- What is left of a deleted tenant: no personal data. `request_id` is that of its create_account,
-- which never makes a second account.
create table tombstones (
    client_id  text primary key,
    request_id uuid not null unique,
    deleted_at timestamptz not null,
    receipt    text not null -- signed, JSON
);

-- Databases made in advance, each with its role of the same name. A row exists from before the
-- database does until a tenant takes it, so that nothing half-made is ever forgotten.
create table pool (
    database text primary key check (database ~ '^t_[0-9a-f]{32}$'),
    cluster  text not null references clusters (name),
    state    text not null check (state in ('making', 'ready')),
    since    timestamptz not null default clock_timestamp()
);

-- One row per worker process. Its session holds the advisory lock of `lock_key`; no lock: dead now.
create table workers (
    incarnation uuid primary key,
    node        text not null,
    lock_key    bigint not null,
    started_at  timestamptz not null default clock_timestamp(),
    leaving     boolean not null default false, -- drains: gets no share
    dead_at     timestamptz                     -- declared dead by the leader; null: alive
);
-- The heartbeat proper. Unlogged: it means nothing after a crash of the server.
create unlogged table worker_beats (
    incarnation uuid primary key,
    beat        bigint not null
) with (fillfactor = 50);

create table brokers (
    node            text primary key,
    workers_address text not null,
    registered_at   timestamptz not null default clock_timestamp()
);

-- The guard of the one writer: raised by each new leader, demanded by each of its writes.
create table leader (
    one         boolean primary key default true check (one),
    epoch       bigint not null,
    incarnation uuid,
    since       timestamptz not null default clock_timestamp()
);
insert into leader (epoch) values (0);

-- The table in force. `body` is one TABLE message of the link: members, owners, token keys.
create table vshards (
    one     boolean primary key default true check (one),
    epoch   bigint not null,
    version bigint not null,
    body    bytea not null
);
insert into vshards (epoch, version, body) values (0, 0, '');

-- When a tenant must be activated although nobody asks. 0: a worker has it active, or died with it.
-- `owner` is the incarnation that activated it last: only that one may write another time or delete
-- the row, so a late writer cannot undo its successor's mark.
create table wake (
    client_id text primary key references tenants (client_id) on delete cascade,
    vshard    integer not null check (vshard between 0 and 4095),
    due_ms    bigint not null,
    owner     uuid not null
);
create index wake_due on wake (vshard, due_ms);

-- Every change of tenant context, in order. The body says what has changed: a tenant (client_id),
-- the vshard table (table) or where a cluster is (cluster); how it is now stands in its own table.
create table feed (
    seq   bigint primary key,
    epoch bigint not null,
    at    timestamptz not null default clock_timestamp(),
    body  jsonb not null
);
create table feed_head (one boolean primary key default true check (one), seq bigint not null);
insert into feed_head (seq) values (0);

-- The head's row lock makes the order of the numbers the order of the commits.
create function feed_append (change jsonb) returns bigint language sql
    set search_path = pg_catalog, public as $$
    with head as (update public.feed_head set seq = seq + 1 returning seq)
    insert into public.feed (seq, epoch, body)
        select head.seq, (select epoch from public.leader), change from head returning seq
$$;

-- Who did what to which tenant. Each row carries the hash of the one before it.
create table audit (
    seq       bigint primary key,
    at        timestamptz not null,
    actor     text not null,
    action    text not null,
    client_id text,
    detail    jsonb not null,
    previous  bytea not null,
    hash      bytea not null
);

create function audit_hash (row_ audit) returns bytea language sql immutable
    set search_path = pg_catalog, public as $$
    select sha256 (row_.previous || convert_to (
        jsonb_build_array (row_.seq, extract (epoch from row_.at)::text, row_.actor, row_.action,
                           row_.client_id, row_.detail)::text, 'UTF8'))
$$;

create function audit_chain () returns trigger language plpgsql
    set search_path = pg_catalog, public as $$
begin
    perform pg_advisory_xact_lock (7410, 1);
    select a.seq + 1, a.hash into new.seq, new.previous from audit a order by a.seq desc limit 1;
    if not found then
        new.seq := 1;
        new.previous := '\x';
    end if;
    new.at := clock_timestamp ();
    new.hash := audit_hash (new);
    return new;
end $$;
create trigger audit_chain before insert on audit
    for each row execute function audit_chain ();

create function audit_refuse () returns trigger language plpgsql as $$
begin
    raise exception 'the audit log is append-only';
end $$;
create trigger audit_append_only before update or delete or truncate on audit
    for each statement execute function audit_refuse ();

-- The number of the first row that does not fit its predecessor; null if the chain is whole.
create function audit_broken () returns bigint language sql stable
    set search_path = pg_catalog, public as $$
    select min (a.seq) from audit a left join audit b on b.seq = a.seq - 1
     where a.hash <> audit_hash (a) or a.previous <> coalesce (b.hash, '\x')
        or (b.seq is null and a.seq <> 1)
$$;

create function audit_append (actor text, action text, client_id text, detail jsonb)
    returns void language sql set search_path = pg_catalog, public as $$
    insert into public.audit (actor, action, client_id, detail)
        values (actor, action, client_id, detail)
$$;
