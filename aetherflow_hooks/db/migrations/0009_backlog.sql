-- Backlog: what waits, for producers and operators to see.

create view aetherflow.backlog with (security_invoker = true) as
select e.tenant, e.id as endpoint_id, e.state,
       (count(*) filter (where d.leased_until <= now() and d.due_at <= now()))::bigint as due,
       (count(*) filter (where d.leased_until <= now() and d.due_at > now() and d.due_at < 'infinity'))::bigint as later,
       (count(*) filter (where d.leased_until > now()))::bigint as in_flight,
       (count(*) filter (where d.due_at = 'infinity'))::bigint as halted,
       min(aetherflow.event_moment(d.event_id)) as oldest_emitted_at
from aetherflow.deliveries d
join aetherflow.endpoints e on e.id = d.endpoint_id
group by e.tenant, e.id, e.state;
comment on view aetherflow.backlog is 'What waits for each endpoint. Counts it, so ask it now and then. Who may read endpoints and deliveries may read it.';
comment on column aetherflow.backlog.tenant is 'The endpoint''s owner.';
comment on column aetherflow.backlog.endpoint_id is 'Where it goes.';
comment on column aetherflow.backlog.state is 'The endpoint''s.';
comment on column aetherflow.backlog.due is 'Deliveries that could be sent now.';
comment on column aetherflow.backlog.later is 'Those that wait for a retry or for their time.';
comment on column aetherflow.backlog.in_flight is 'Those that an engine has on lease.';
comment on column aetherflow.backlog.halted is 'Those that wait for people.';
comment on column aetherflow.backlog.oldest_emitted_at is 'When the oldest of the events was emitted.';

create function aetherflow.backlog_size(most bigint default 1000000) returns bigint
language sql stable security definer set search_path = pg_catalog, pg_temp
return (select count(*) from (select from aetherflow.outbox limit most) o)
     + (select count(*) from (select from aetherflow.deliveries limit most) d);
comment on function aetherflow.backlog_size(bigint) is
    'How many events are still to be fanned out and deliveries to be made, each counted up to a bound: for producers that hold back by themselves.';

revoke execute on function aetherflow.backlog_size(bigint) from public;

-- Who looks on may see it. An application that emits may do nothing else, unless it is granted.
create or replace function aetherflow.make_roles(row_security boolean default false) returns text[]
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    own_schema constant name := (
        select n.nspname from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        where p.oid = 'aetherflow.shard_of(text)'::regprocedure);
    emitting constant name := own_schema || '_emit';
    engine constant name := own_schema || '_engine';
    reading constant name := own_schema || '_read';
    tenants constant name := own_schema || '_tenant';
    role_name name;
    relation name;
    by_tenant text;
begin
    foreach role_name in array array[emitting, engine, reading, tenants] loop
        if not exists (select from pg_roles where rolname = role_name) then
            execute format('create role %I nologin', role_name);
        end if;
        execute format('grant usage on schema aetherflow to %I', role_name);
    end loop;
    perform aetherflow.grant_emit(emitting);

    -- What an engine does, and whoever manages endpoints: rows, but no tables.
    execute format('grant execute on all functions in schema aetherflow to %I', engine);
    execute format('revoke execute on function aetherflow.grant_emit, aetherflow.make_roles from %I', engine);
    execute format(
        'grant select, insert, update, delete on aetherflow.engines, aetherflow.endpoints, aetherflow.secrets, '
        'aetherflow.headers, aetherflow.certificates, aetherflow.subscriptions, aetherflow.event_types, aetherflow.outbox, '
        'aetherflow.deliveries, aetherflow.dead to %I', engine);
    execute format('grant select, update on aetherflow.control, aetherflow.shards to %I', engine);
    execute format('grant select, delete on aetherflow.idempotency_keys to %I', engine);
    execute format('grant select, insert on aetherflow.attempts to %I', engine);
    execute format('grant select on aetherflow.events, aetherflow.migrations to %I', engine);

    -- Who looks on sees all but secrets.
    execute format(
        'grant select on aetherflow.events, aetherflow.endpoints, aetherflow.subscriptions, aetherflow.event_types, '
        'aetherflow.outbox, aetherflow.deliveries, aetherflow.dead, aetherflow.attempts, aetherflow.engines, '
        'aetherflow.shards, aetherflow.control, aetherflow.migrations, aetherflow.backlog to %I', reading);
    execute format('grant select (endpoint_id, made_at, ends_at, leads_at, public_key) on aetherflow.secrets to %I', reading);
    execute format('grant select (endpoint_id, name) on aetherflow.headers to %I', reading);
    execute format('grant select (endpoint_id, subject, expires_at) on aetherflow.certificates to %I', reading);
    execute format(
        'grant execute on function aetherflow.shard_count, aetherflow.shard_of, aetherflow.event_id_at, '
        'aetherflow.event_moment, aetherflow.backlog_size to %I', reading);

    execute format(
        'grant select on aetherflow.events, aetherflow.endpoints, aetherflow.subscriptions, aetherflow.deliveries, '
        'aetherflow.dead, aetherflow.attempts to %I', tenants);
    execute format('grant execute on function aetherflow.tenants_of to %I', tenants);
    foreach relation in array array['events', 'endpoints', 'subscriptions', 'deliveries', 'dead', 'attempts'] loop
        execute format('drop policy if exists everything on aetherflow.%I', relation);
        execute format('drop policy if exists by_tenant on aetherflow.%I', relation);
        if not row_security then
            execute format('alter table aetherflow.%I disable row level security', relation);
            execute format('revoke select on aetherflow.%I from %I', relation, tenants);
            continue;
        end if;
        by_tenant := case when relation in ('events', 'endpoints', 'subscriptions')
            then 'tenant = any ((select aetherflow.tenants_of(current_user))::text[])'
            else 'endpoint_id in (select e.id from aetherflow.endpoints e)' end;  -- of those that can be seen
        execute format('create policy everything on aetherflow.%I to %I, %I using (true) with check (true)',
                       relation, engine, reading);
        execute format('create policy by_tenant on aetherflow.%I for select to %I using (%s)',
                       relation, tenants, by_tenant);
        execute format('alter table aetherflow.%I enable row level security', relation);
    end loop;
    return array[emitting, engine, reading] || case when row_security then array[tenants] else '{}' end;
end
$$;

do $$
declare
    own_schema constant name := (
        select n.nspname from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        where p.oid = 'aetherflow.shard_of(text)'::regprocedure);
begin
    if exists (select from pg_roles where rolname = own_schema || '_read') then
        execute format('grant select on aetherflow.backlog to %I', own_schema || '_read');
        execute format('grant execute on function aetherflow.backlog_size to %I', own_schema || '_read');
    end if;
end
$$;
