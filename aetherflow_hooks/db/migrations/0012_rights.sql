-- Rights as rows: what each role may do with a table stands where the table is made, and whoever
-- upgrades need not make the roles again.

create table aetherflow.rights (
    role        text collate "C" not null check (role in ('engine', 'read', 'tenant')),
    kind        text collate "C" not null default 'table' check (kind in ('table', 'function')),
    object      text collate "C" not null,
    privileges  text collate "C" not null,
    primary key (role, kind, object, privileges)
);
comment on table aetherflow.rights is 'What the roles of make_roles may do. Whoever emits may emit, and has no row here.';
comment on column aetherflow.rights.role is 'engine: works, and manages; read: looks on; tenant: looks on at what is one tenant''s, where there is row security.';
comment on column aetherflow.rights.kind is 'What the object is.';
comment on column aetherflow.rights.object is 'The table or the function.';
comment on column aetherflow.rights.privileges is 'As they stand in GRANT, with columns where not all of them are meant.';
comment on index aetherflow.rights_pkey is 'Each right once.';

insert into aetherflow.rights (role, object, privileges)
select 'engine', object, 'select, insert, update, delete' from unnest(array[
    'engines', 'endpoints', 'secrets', 'headers', 'certificates', 'subscriptions', 'event_types', 'outbox',
    'deliveries', 'dead']) as object
union all select 'engine', object, 'select, update' from unnest(array['control', 'shards']) as object
union all select 'engine', 'idempotency_keys', 'select, delete'
union all select 'engine', 'attempts', 'select, insert'
union all select 'engine', object, 'select' from unnest(array['events', 'migrations']) as object
union all select 'read', object, 'select' from unnest(array[
    'events', 'endpoints', 'subscriptions', 'event_types', 'outbox', 'deliveries', 'dead', 'attempts', 'engines',
    'shards', 'control', 'migrations', 'backlog']) as object
union all select 'read', 'secrets', 'select (endpoint_id, made_at, ends_at, leads_at, public_key)'
union all select 'read', 'headers', 'select (endpoint_id, name)'
union all select 'read', 'certificates', 'select (endpoint_id, subject, expires_at)'
union all select 'tenant', object, 'select' from unnest(array[
    'events', 'endpoints', 'subscriptions', 'deliveries', 'dead', 'attempts']) as object;
insert into aetherflow.rights (role, kind, object, privileges)
select 'read', 'function', object, 'execute' from unnest(array[
    'shard_count', 'shard_of', 'event_id_at', 'event_moment', 'backlog_size']) as object
union all select 'tenant', 'function', 'tenants_of', 'execute';

create function aetherflow.apply_rights(row_security boolean default null) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    own_schema constant name := (
        select n.nspname from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        where p.oid = 'aetherflow.shard_of(text)'::regprocedure);
    engine constant name := own_schema || '_engine';
    reading constant name := own_schema || '_read';
    tenants constant name := own_schema || '_tenant';
    is_secured constant boolean := coalesce(row_security, (
        select c.relrowsecurity from pg_class c where c.oid = 'aetherflow.events'::regclass));
    entry record;
    by_tenant text;
    was_secured boolean;
begin
    for entry in
        select r.*, own_schema || '_' || r.role as role_name from aetherflow.rights r
        where exists (select from pg_roles p where p.rolname = own_schema || '_' || r.role)
          and (r.role <> 'tenant' or is_secured)
        order by r.role, r.object
    loop
        execute format('grant %s on %s aetherflow.%I to %I', entry.privileges, entry.kind, entry.object, entry.role_name);
    end loop;
    if exists (select from pg_roles where rolname = engine) then
        execute format('grant execute on all functions in schema aetherflow to %I', engine);
        execute format(
            'revoke execute on function aetherflow.grant_emit, aetherflow.make_roles, aetherflow.apply_rights from %I', engine);
    end if;
    if not exists (select from pg_roles where rolname = tenants) then
        return;
    end if;
    for entry in select r.object from aetherflow.rights r where r.role = 'tenant' and r.kind = 'table' loop
        -- what is as it should be is left alone, since each of these takes a lock that stops everybody
        select c.relrowsecurity into was_secured
        from pg_class c where c.oid = to_regclass('aetherflow.' || quote_ident(entry.object));
        continue when was_secured = is_secured;
        execute format('drop policy if exists everything on aetherflow.%I', entry.object);
        execute format('drop policy if exists by_tenant on aetherflow.%I', entry.object);
        if not is_secured then
            execute format('alter table aetherflow.%I disable row level security', entry.object);
            execute format('revoke select on aetherflow.%I from %I', entry.object, tenants);
            continue;
        end if;
        by_tenant := case when exists (
                select from pg_attribute a
                where a.attrelid = to_regclass('aetherflow.' || quote_ident(entry.object)) and a.attname = 'tenant')
            then 'tenant = any ((select aetherflow.tenants_of(current_user))::text[])'
            else 'endpoint_id in (select e.id from aetherflow.endpoints e)' end;  -- of those that can be seen
        execute format('create policy everything on aetherflow.%I to %I, %I using (true) with check (true)',
                       entry.object, engine, reading);
        execute format('create policy by_tenant on aetherflow.%I for select to %I using (%s)',
                       entry.object, tenants, by_tenant);
        execute format('alter table aetherflow.%I enable row level security', entry.object);
    end loop;
end
$$;
comment on function aetherflow.apply_rights(boolean) is
    'Let the roles that there are do what `rights` says, and set row security on or off; null leaves that as it is.';

create or replace function aetherflow.make_roles(row_security boolean default false) returns text[]
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    own_schema constant name := (
        select n.nspname from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        where p.oid = 'aetherflow.shard_of(text)'::regprocedure);
    role_name name;
begin
    foreach role_name in array array['emit', 'engine', 'read', 'tenant'] loop
        role_name := own_schema || '_' || role_name;
        if not exists (select from pg_roles where rolname = role_name) then
            execute format('create role %I nologin', role_name);
        end if;
        execute format('grant usage on schema aetherflow to %I', role_name);
    end loop;
    perform aetherflow.grant_emit((own_schema || '_emit')::name);
    perform aetherflow.apply_rights(row_security);
    return array[own_schema || '_emit', own_schema || '_engine', own_schema || '_read']
           || case when row_security then array[own_schema || '_tenant'] else '{}' end;
end
$$;

revoke execute on function aetherflow.apply_rights from public;
