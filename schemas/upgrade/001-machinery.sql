-- SPDX-License-Identifier: Apache-2.0
--
-- What lets the owner of a tenant run a step of the schema. No step itself: the administrator
-- (docket migrate) runs this in a tenant's database as often as it likes, before it places steps
-- there, so that databases of any version have it and always the newest form of it.
--
-- Who may do what: the tenant's role owns nothing and cannot do DDL. The text of a step comes from
-- `migrations`, which only the administrator can read or write; the owner says an epoch and a
-- number. So whoever gets hold of a tenant's role can at worst run a placed step early.

create table if not exists migrations (
    version    int primary key,
    min_reader int not null,  -- the oldest code that understands the schema after it
    name       text not null, -- of the file
    sql        text not null
);
revoke all on migrations from public, docket_tenant;

-- Runs the first placed step above the schema's version, up to p_target, with the guard and the
-- entry in schema_version in one transaction: it runs once, and only the owner runs it. A step that
-- fails is undone by its subtransaction and told in code (its SQLSTATE) and error, so that the
-- owner's connection, and with it the lock, outlives it; a statement that took too long is such a
-- failure too (query_canceled is not among "others"). A stale epoch raises, as for every group.
--
-- search_path: nobody but the administrator may create in public; temporary ones come last.
-- client_min_messages: a WARNING would look like a commit that is durable here only.
create or replace function docket_migrate(p_epoch bigint, p_target bigint,
                                          out version bigint, out db_ms bigint,
                                          out code text, out error text)
language plpgsql security definer
set search_path = public, pg_temp
set lock_timeout = '500ms'
set client_min_messages = 'error' as $$
#variable_conflict use_column
declare
    step migrations;
    done bigint;
begin
    db_ms := docket_ms(docket_guard(p_epoch, 'infinity'));
    select max(s.version) into done from schema_version s;
    version := done;
    select m.* into step from migrations m
    where m.version > done and m.version <= p_target order by m.version limit 1;
    if not found then
        if done < p_target then
            code := 'DK004';
            error := format('no step after %s was placed here', done);
        end if;
        return;
    end if;
    begin
        execute step.sql;
        insert into schema_version (version, min_reader) values (step.version, step.min_reader)
            on conflict do nothing; -- it may enter itself
        version := step.version;
    exception when query_canceled or others then
        get stacked diagnostics code = returned_sqlstate, error = message_text;
        error := format('%s: %s', step.name, error);
    end;
end $$;
revoke all on function docket_migrate(bigint, bigint) from public;
grant execute on function docket_migrate(bigint, bigint) to docket_tenant;
