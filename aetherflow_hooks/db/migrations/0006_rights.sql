-- Rights: roles that can do one thing each, and what an owner alone can do, put into functions.

create function aetherflow.drop_partition(name text) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '100ms'
as $$
declare
    parent constant text := split_part(name, '_', 1);
begin
    if name !~ '^(events|attempts)_[0-9]{8}$' or to_regclass('aetherflow.' || quote_ident(name)) is null then
        raise exception using errcode = 'invalid_parameter_value', message = format('%L is no day''s table', name);
    end if;
    if to_date(right(name, 8), 'YYYYMMDD') > (now() at time zone 'UTC')::date - 2 then
        raise exception using errcode = 'invalid_parameter_value', message = format('%s is too new to drop', name);
    end if;
    if exists (select from pg_inherits where inhrelid = to_regclass('aetherflow.' || quote_ident(name))) then
        execute format('alter table aetherflow.%I detach partition aetherflow.%I', parent, name);
    end if;
    execute format('drop table aetherflow.%I', name);
    return true;
exception
    when lock_not_available then
        return false;
end
$$;
comment on function aetherflow.drop_partition(text) is
    'Drop a day of events or attempts that is past, for an engine that does not own them; false: they are in use, try later.';

create table aetherflow.tenant_roles (
    role_name  name not null,
    tenant     text collate "C" not null,
    primary key (role_name, tenant)
);
comment on table aetherflow.tenant_roles is 'Which role may read which tenant''s rows, where there is row security.';
comment on column aetherflow.tenant_roles.role_name is 'The role, or one that it is a member of.';
comment on column aetherflow.tenant_roles.tenant is 'The tenant.';
comment on index aetherflow.tenant_roles_pkey is 'A role''s tenants.';

create function aetherflow.tenants_of(reader name) returns text[]
language sql stable security definer set search_path = pg_catalog, pg_temp
return array(
    select t.tenant from aetherflow.tenant_roles t
    where exists (select from pg_roles r where r.rolname = t.role_name and pg_has_role(reader, r.oid, 'member'))
);
comment on function aetherflow.tenants_of(name) is 'The tenants whose rows a role may read.';

create function aetherflow.make_roles(row_security boolean default false) returns text[]
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
        'aetherflow.shards, aetherflow.control, aetherflow.migrations to %I', reading);
    execute format('grant select (endpoint_id, made_at, ends_at, leads_at, public_key) on aetherflow.secrets to %I', reading);
    execute format('grant select (endpoint_id, name) on aetherflow.headers to %I', reading);
    execute format('grant select (endpoint_id, subject, expires_at) on aetherflow.certificates to %I', reading);
    execute format(
        'grant execute on function aetherflow.shard_count, aetherflow.shard_of, aetherflow.event_id_at, '
        'aetherflow.event_moment to %I', reading);

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
comment on function aetherflow.make_roles(boolean) is
    'Make roles to grant to others, _emit, _engine and _read, and with row security _tenant; gives their names. Safe to run again.';

create function aetherflow.let_read(role_name name, tenant text) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    own_schema constant name := (
        select n.nspname from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        where p.oid = 'aetherflow.shard_of(text)'::regprocedure);
begin
    if not (select c.relrowsecurity from pg_class c where c.oid = 'aetherflow.events'::regclass) then
        raise exception using errcode = 'invalid_parameter_value', message =
            'there is no row security: select aetherflow.make_roles(row_security => true)';
    end if;
    execute format('grant %I to %I', own_schema || '_tenant', role_name);
    insert into aetherflow.tenant_roles values (role_name, tenant) on conflict do nothing;
end
$$;
comment on function aetherflow.let_read(name, text) is 'Let a role read the rows of one tenant, and no others.';

revoke execute on function aetherflow.drop_partition, aetherflow.tenants_of, aetherflow.make_roles, aetherflow.let_read
    from public;
