-- Emit: events are ordered by a key, for endpoints that get those of a key one after the other; data
-- that receivers could not read is refused, and so is everything while there is too much of a backlog.

alter table aetherflow.control add column backlog_is_full boolean not null default false;
comment on column aetherflow.control.backlog_is_full is 'More waits than the setting emit.backlog_max lets in, as an engine has found: emit refuses.';

alter table aetherflow.endpoints add column ordering text check (ordering in ('skip', 'block'));
comment on column aetherflow.endpoints.ordering is
    'It gets the events of a key in their order, one at a time. Of one that is given up, skip lets the next go; block waits for people.';
create index endpoints_ordered on aetherflow.endpoints (tenant, id) where ordering is not null;
comment on index aetherflow.endpoints_ordered is 'Which of a tenant''s endpoints have an order, mostly none.';

alter table aetherflow.events add column ordering_key text collate "C";
comment on column aetherflow.events.ordering_key is 'What it is ordered by, for endpoints with an order; null: with all others that have none.';
alter table aetherflow.outbox add column ordering_key text collate "C";
comment on column aetherflow.outbox.ordering_key is 'Copied likewise.';
alter table aetherflow.deliveries add column ordering_key text collate "C";
comment on column aetherflow.deliveries.ordering_key is
    'Where the endpoint has an order, a slash and the event''s key, if it has one: the first of its key goes before the others. Else null.';
create index deliveries_order on aetherflow.deliveries (shard, endpoint_id, ordering_key, event_id)
    where ordering_key is not null;
comment on index aetherflow.deliveries_order is 'Leasing in order: the first of each key.';

alter table aetherflow.attempts drop constraint attempts_verdict_check;
alter table aetherflow.attempts add constraint attempts_verdict_check
    check (verdict in ('delivered', 'retry', 'dead', 'halted', 'late')) not valid;
comment on column aetherflow.attempts.verdict is
    'What followed: delivered, another attempt, the end, nothing until people decide (halted), or nothing, since the lease was lost (late).';
alter table aetherflow.dead drop constraint dead_reason_check;
alter table aetherflow.dead add constraint dead_reason_check
    check (reason in ('exhausted', 'gone', 'expired', 'too_large', 'cancelled')) not valid;
comment on column aetherflow.dead.reason is
    'exhausted: every attempt failed; gone: it answered 410; expired: too late to send it; too_large: more than any limit lets in; cancelled: by hand.';

-- Who could call emit can call the new one.
select set_config('aetherflow_hooks.may_emit', coalesce(string_agg(distinct acl.grantee::text, ','), ''), true)
from pg_proc p
cross join lateral aclexplode(p.proacl) acl
where p.proname = 'emit' and p.pronamespace = (
    select pronamespace from pg_proc where oid = 'aetherflow.shard_of(text)'::regprocedure)
  and acl.grantee <> p.proowner and acl.grantee <> 0;
drop function aetherflow.emit(text, json, text, text, timestamptz, timestamptz);
drop function aetherflow.emit(text, jsonb, text, text, timestamptz, timestamptz);
drop function aetherflow.emit(text, text, text, text, timestamptz, timestamptz);

create function aetherflow.emit(
    type text,
    data text,
    tenant text default '',
    idempotency_key text default null,
    deliver_at timestamptz default null,
    expires_at timestamptz default null,
    ordering_key text default null
) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    emitted_at timestamptz := clock_timestamp();
    due_at timestamptz := greatest(emitted_at, emit.deliver_at);
    control aetherflow.control;
    json_kind text;
    json_problem text;
    escapes text;
    event_id text;
    event_shard smallint;
    last_digits integer;
    key_shard smallint;
    first_event_id text;
begin
    select * into strict control from aetherflow.control;

    if (emit.type ~ '^[A-Za-z0-9_.-]{1,128}$') is not true then
        raise exception using errcode = 'invalid_parameter_value', message = format(
            'aetherflow.emit: the type %L is not 1 to 128 characters of A-Z a-z 0-9 _ . -', left(emit.type, 200));
    end if;
    if control.backlog_is_full and left(emit.type, 11) <> 'aetherflow' || '.' then
        raise exception using errcode = 'configuration_limit_exceeded', message =
            'aetherflow.emit: too much waits to be delivered (setting emit.backlog_max); try again later';
    end if;
    if octet_length(emit.data) > control.data_max_bytes then
        raise exception using errcode = 'program_limit_exceeded', message = format(
            'aetherflow.emit: data is %s bytes, the limit is %s (setting emit.data_max_bytes)',
            octet_length(emit.data), control.data_max_bytes);
    end if;
    begin
        json_kind := json_typeof(emit.data::json);
    exception
        when invalid_text_representation then
            get stacked diagnostics json_problem = pg_exception_detail;
        when statement_too_complex then
            json_problem = 'it is nested too deeply';
    end;
    if json_kind is distinct from 'object' then
        raise exception using errcode = 'invalid_parameter_value',
            message = 'aetherflow.emit: data must be a JSON object, if only {}; this is '
                || coalesce('a JSON ' || json_kind, 'none: ' || json_problem, 'null');
    end if;
    if strpos(emit.data, '\u') > 0 then
        -- where each pair of backslashes, which stands for one, is put away, every other begins an escape
        escapes := replace(emit.data, '\\', '-');
        if escapes ~ '\\u0000'
            or escapes ~* '\\ud[89ab][0-9a-f]{2}(?!\\ud[c-f])'
            or escapes ~* '(?<!\\ud[89ab][0-9a-f]{2})\\ud[c-f]'
        then
            raise exception using errcode = 'invalid_parameter_value', message =
                'aetherflow.emit: data holds \u0000 or half of a surrogate pair, '
                'which many receivers can neither read nor store';
        end if;
    end if;
    if (length(emit.tenant) <= 256 and emit.tenant !~ '[[:cntrl:]]') is not true then
        raise exception using errcode = 'invalid_parameter_value', message =
            'aetherflow.emit: tenant is null, over 256 characters or holds a control character; '
            'leave it out where there are no tenants';
    end if;
    if length(emit.idempotency_key) not between 1 and 256 then
        raise exception using errcode = 'invalid_parameter_value',
            message = 'aetherflow.emit: idempotency_key is not 1 to 256 characters';
    end if;
    if length(emit.ordering_key) not between 1 and 256 then
        raise exception using errcode = 'invalid_parameter_value',
            message = 'aetherflow.emit: ordering_key is not 1 to 256 characters';
    end if;
    if due_at > emitted_at + make_interval(days => control.events_days) then
        raise exception using errcode = 'invalid_parameter_value', message = format(
            'aetherflow.emit: deliver_at is later than events are kept, %s days (setting sweep.events_days)',
            control.events_days);
    end if;

    -- The last group of a random UUID is 48 random bits. The shard, which the last three digits tell,
    -- is the moment's: what is emitted within 16 ms is fanned out by one statement, not by one for
    -- each shard.
    event_id := aetherflow.event_id_at(emitted_at) || right(gen_random_uuid()::text, 11);
    if emit.ordering_key is not null or exists (
        select from aetherflow.endpoints e where e.tenant = emit.tenant and e.ordering is not null
    ) then
        -- One shard for all of a key: fan-out takes a shard's events in their order, one batch at a time.
        event_shard := aetherflow.shard_of(md5(emit.tenant || '/' || coalesce(emit.ordering_key, '')));
    else
        event_shard := (extract(epoch from emitted_at) * 1000)::bigint / 16 % aetherflow.shard_count();
    end if;
    last_digits := ('x' || right(event_id, 3))::bit(12)::integer;
    last_digits := last_digits - last_digits % aetherflow.shard_count() + event_shard;
    if last_digits > 4095 then
        last_digits := last_digits - aetherflow.shard_count();
    end if;
    event_id := left(event_id, -3) || lpad(to_hex(last_digits), 3, '0');

    if emit.idempotency_key is not null then
        key_shard := aetherflow.shard_of(md5(emit.tenant || '/' || emit.idempotency_key));
        loop
            -- Where another transaction is about to use the key, this waits for its end.
            insert into aetherflow.idempotency_keys (shard, tenant, key, event_id)
            values (key_shard, emit.tenant, emit.idempotency_key, event_id)
            on conflict do nothing;
            exit when found;
            select k.event_id into first_event_id from aetherflow.idempotency_keys k
            where k.shard = key_shard and k.tenant = emit.tenant and k.key = emit.idempotency_key;
            if found then
                return first_event_id;
            end if;
        end loop;
    end if;

    -- Only where no engine has run for days is a partition missing; emit helps itself then.
    if emitted_at >= control.events_until then
        perform aetherflow.make_partitions(2);
    end if;

    insert into aetherflow.events (shard, id, tenant, type, data, emitted_at, deliver_at, expires_at, ordering_key)
    values (event_shard, event_id, emit.tenant, emit.type, emit.data, emitted_at, emit.deliver_at, emit.expires_at,
            emit.ordering_key);
    insert into aetherflow.outbox (shard, due_at, event_id, tenant, type, expires_at, ordering_key)
    values (event_shard, due_at, event_id, emit.tenant, emit.type, emit.expires_at, emit.ordering_key);

    -- A notification makes commits wait for each other, so it is only for an engine that asks. Under
    -- load none does, and to know that takes one look, not a join.
    if due_at < emitted_at + interval '2 seconds' and exists (select from aetherflow.engines e where e.asleep) then
        if exists (
            select from aetherflow.shards s join aetherflow.engines e on e.id = s.owner
            where s.shard = event_shard and e.asleep
        ) then
            perform pg_notify('aetherflow.wake', '');
        end if;
    end if;
    return event_id;
end
$$;
comment on function aetherflow.emit(text, text, text, text, timestamptz, timestamptz, text) is
    'Write an event into the outbox, as part of the caller''s transaction; gives its id. data is the text of a JSON object and is sent byte for byte.';

create function aetherflow.emit(
    type text,
    data json,
    tenant text default '',
    idempotency_key text default null,
    deliver_at timestamptz default null,
    expires_at timestamptz default null,
    ordering_key text default null
) returns text
language sql security definer set search_path = pg_catalog, pg_temp
return aetherflow.emit(type, data::text, tenant, idempotency_key, deliver_at, expires_at, ordering_key);
comment on function aetherflow.emit(text, json, text, text, timestamptz, timestamptz, text) is
    'The same for json, which keeps its text as it was given.';

create function aetherflow.emit(
    type text,
    data jsonb,
    tenant text default '',
    idempotency_key text default null,
    deliver_at timestamptz default null,
    expires_at timestamptz default null,
    ordering_key text default null
) returns text
language sql security definer set search_path = pg_catalog, pg_temp
return aetherflow.emit(type, data::text, tenant, idempotency_key, deliver_at, expires_at, ordering_key);
comment on function aetherflow.emit(text, jsonb, text, text, timestamptz, timestamptz, text) is
    'The same for jsonb, as its text is written by Postgres.';

revoke execute on function
    aetherflow.emit(text, text, text, text, timestamptz, timestamptz, text),
    aetherflow.emit(text, json, text, text, timestamptz, timestamptz, text),
    aetherflow.emit(text, jsonb, text, text, timestamptz, timestamptz, text)
    from public;
do $$
declare
    role_name name;
begin
    for role_name in
        select r.rolname from pg_roles r
        where r.oid::text = any (string_to_array(current_setting('aetherflow_hooks.may_emit'), ','))
    loop
        perform aetherflow.grant_emit(role_name);
    end loop;
end
$$;
