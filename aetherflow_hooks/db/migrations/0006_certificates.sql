-- Certificates that endpoints want to see of us, with their keys.

create table aetherflow.certificates (
    endpoint_id  text collate "C" primary key,
    pem          text not null,
    subject      text not null,
    expires_at   timestamptz not null
);
comment on table aetherflow.certificates is 'What we show to endpoints that ask for a client''s certificate (mutual TLS).';
comment on column aetherflow.certificates.endpoint_id is 'To whom.';
comment on column aetherflow.certificates.pem is 'Certificates and private key, sealed where there is a key.';
comment on column aetherflow.certificates.subject is 'Whom it names, for people.';
comment on column aetherflow.certificates.expires_at is 'Until when it is good.';
comment on index aetherflow.certificates_pkey is 'An endpoint''s certificate.';

-- As before, with the new table.
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
