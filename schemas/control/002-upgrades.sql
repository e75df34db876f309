-- SPDX-License-Identifier: Apache-2.0
-- min_reader: 1
-- kind: expand
--
-- Upgrades of the tenants' schemas, one row per tenant that `docket migrate` has looked at. The
-- command asks, the tenant's owner runs the step, its directory writes what became of it.
create table upgrades (
    client_id text primary key references tenants (client_id) on delete cascade,
    version   integer not null,           -- of its schema, when somebody last looked
    target    integer not null,
    state     text not null check (state in ('asked', 'done', 'failed')),
    error     text,                       -- why it is not there yet
    broken    integer not null default 0, -- owners that ended while they ran the step
    asked_at  timestamptz not null default clock_timestamp(),
    at        timestamptz not null default clock_timestamp()
);
create index upgrades_asked on upgrades (client_id) where state = 'asked';

-- The newest schemas that the worker's code knows: of the tenants, of the control database. Code
-- that says nothing knows the first.
alter table workers add column reads integer not null default 1;
alter table workers add column control_reads integer not null default 1;

-- How far contract steps have been let loose: no worker whose code is older may own tenants. And
-- how far the pool is.
create table schema_floor (
    one        boolean primary key default true check (one),
    reads      integer not null, -- the largest min_reader of them
    contracted integer not null, -- the newest of them
    pooled     integer not null  -- all ready-made databases have this step
);
insert into schema_floor (reads, contracted, pooled) values (1, 0, 0);
