-- The functions. Only `emit` is for applications; none of them is open to PUBLIC.

create function aetherflow.shard_count() returns integer
language sql immutable parallel safe
return 16 /* shards */;
comment on function aetherflow.shard_count() is 'How many shards there are: fixed by the first migration.';
insert into aetherflow.shards (shard) select generate_series(0, aetherflow.shard_count() - 1);

create function aetherflow.shard_of(id text) returns smallint
language sql immutable parallel safe
return (('x' || right(id, 3))::bit(12)::integer % aetherflow.shard_count())::smallint;
comment on function aetherflow.shard_of(text) is 'The shard of an event or endpoint: its id''s last three hex digits say it.';

create function aetherflow.event_id_at(moment timestamptz) returns text
language sql immutable parallel safe
return 'evt_' || lpad(to_hex((extract(epoch from moment) * 1000000)::bigint), 13, '0');
comment on function aetherflow.event_id_at(timestamptz) is 'How the ids of events of that microsecond begin; every earlier one sorts before it.';

create function aetherflow.event_moment(event_id text) returns timestamptz
language sql immutable parallel safe
return timestamptz 'epoch' + interval '1 microsecond' * ('x' || substr(event_id, 5, 13))::bit(52)::bigint;
comment on function aetherflow.event_moment(text) is 'When an event was emitted, to the microsecond, as its id says.';

create function aetherflow.patterns_of(type text) returns setof text
language sql immutable parallel safe
begin atomic
    select '*' where left(type, 11) <> 'aetherflow' || '.'
    union all
    select type
    union all
    select array_to_string((string_to_array(type, '.'))[1:n], '.') || '.*'
    from generate_series(1, cardinality(string_to_array(type, '.')) - 1) as n;
end;
comment on function aetherflow.patterns_of(text) is 'Every pattern that chooses a type, so that fan-out is a join on equality: a.b gives *, a.b and a.*. What is told to operators, aetherflow.*, is not among *.';

create function aetherflow.make_partitions(ahead_days integer) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    first_day date := (now() at time zone 'UTC')::date - 1;
    day date;
    name text;
begin
    -- Attaching a table that exists takes a lock that lets inserts go on; creating it as a
    -- partition at once would not. Callers queue here, so that two of them never make the same day.
    lock table aetherflow.control in share update exclusive mode;
    for day in select first_day + n from generate_series(0, ahead_days + 1) as n loop
        name := 'events_' || to_char(day, 'YYYYMMDD');
        if to_regclass('aetherflow.' || quote_ident(name)) is null then
            execute format('create table aetherflow.%I (like aetherflow.events including all)', name);
            execute format('comment on table aetherflow.%I is %L', name, 'Events of ' || day);
            execute format(
                'alter table aetherflow.events attach partition aetherflow.%I for values from (%L) to (%L)', name,
                aetherflow.event_id_at(day::timestamp at time zone 'UTC'),
                aetherflow.event_id_at((day + 1)::timestamp at time zone 'UTC'));
        end if;
        name := 'attempts_' || to_char(day, 'YYYYMMDD');
        if to_regclass('aetherflow.' || quote_ident(name)) is null then
            execute format('create table aetherflow.%I (like aetherflow.attempts including all)', name);
            execute format('comment on table aetherflow.%I is %L', name, 'Attempts of ' || day);
            execute format(
                'alter table aetherflow.attempts attach partition aetherflow.%I for values from (%L) to (%L)', name,
                day::timestamp at time zone 'UTC', (day + 1)::timestamp at time zone 'UTC');
        end if;
    end loop;
    update aetherflow.control
    set events_until = (first_day + ahead_days + 2)::timestamp at time zone 'UTC'
    where events_until < (first_day + ahead_days + 2)::timestamp at time zone 'UTC';
end
$$;
comment on function aetherflow.make_partitions(integer) is 'Make the partitions of yesterday, today and that many days ahead, where they are not there yet.';

create function aetherflow.emit(
    type text,
    data text,
    tenant text default '',
    idempotency_key text default null,
    deliver_at timestamptz default null,
    expires_at timestamptz default null
) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    emitted_at timestamptz := clock_timestamp();
    due_at timestamptz := greatest(emitted_at, emit.deliver_at);
    control aetherflow.control;
    json_kind text;
    json_problem text;
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
    if octet_length(emit.data) > control.data_max_bytes then
        raise exception using errcode = 'program_limit_exceeded', message = format(
            'aetherflow.emit: data is %s bytes, the limit is %s (setting emit.data_max_bytes)',
            octet_length(emit.data), control.data_max_bytes);
    end if;
    begin
        json_kind := json_typeof(emit.data::json);
    exception when invalid_text_representation then
        get stacked diagnostics json_problem = pg_exception_detail;
    end;
    if json_kind is distinct from 'object' then
        raise exception using errcode = 'invalid_parameter_value',
            message = 'aetherflow.emit: data must be a JSON object, if only {}; this is '
                || coalesce('a JSON ' || json_kind, 'none: ' || json_problem, 'null');
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
    if due_at > emitted_at + make_interval(days => control.events_days) then
        raise exception using errcode = 'invalid_parameter_value', message = format(
            'aetherflow.emit: deliver_at is later than events are kept, %s days (setting sweep.events_days)',
            control.events_days);
    end if;

    -- The last group of a random UUID is 48 random bits. The shard, which the last three digits tell,
    -- is the moment's: what is emitted within 16 ms is fanned out by one statement, not by one for
    -- each shard.
    event_id := aetherflow.event_id_at(emitted_at) || right(gen_random_uuid()::text, 11);
    event_shard := (extract(epoch from emitted_at) * 1000)::bigint / 16 % aetherflow.shard_count();
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

    insert into aetherflow.events (shard, id, tenant, type, data, emitted_at, deliver_at, expires_at)
    values (event_shard, event_id, emit.tenant, emit.type, emit.data, emitted_at, emit.deliver_at, emit.expires_at);
    insert into aetherflow.outbox (shard, due_at, event_id, tenant, type, expires_at)
    values (event_shard, due_at, event_id, emit.tenant, emit.type, emit.expires_at);

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
comment on function aetherflow.emit(text, text, text, text, timestamptz, timestamptz) is
    'Write an event into the outbox, as part of the caller''s transaction; gives its id. data is the text of a JSON object and is sent byte for byte.';

create function aetherflow.emit(
    type text,
    data json,
    tenant text default '',
    idempotency_key text default null,
    deliver_at timestamptz default null,
    expires_at timestamptz default null
) returns text
language sql security definer set search_path = pg_catalog, pg_temp
return aetherflow.emit(type, data::text, tenant, idempotency_key, deliver_at, expires_at);
comment on function aetherflow.emit(text, json, text, text, timestamptz, timestamptz) is
    'The same for json, which keeps its text as it was given.';

create function aetherflow.emit(
    type text,
    data jsonb,
    tenant text default '',
    idempotency_key text default null,
    deliver_at timestamptz default null,
    expires_at timestamptz default null
) returns text
language sql security definer set search_path = pg_catalog, pg_temp
return aetherflow.emit(type, data::text, tenant, idempotency_key, deliver_at, expires_at);
comment on function aetherflow.emit(text, jsonb, text, text, timestamptz, timestamptz) is
    'The same for jsonb, as its text is written by Postgres.';

create function aetherflow.grant_emit(role_name text) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    overload regprocedure;
begin
    execute format('grant usage on schema aetherflow to %I', role_name);
    for overload in
        select oid::regprocedure from pg_proc
        where proname = 'emit' and pronamespace = (
            select pronamespace from pg_proc where oid = 'aetherflow.shard_of(text)'::regprocedure)
    loop
        execute format('grant execute on function %s to %I', overload, role_name);
    end loop;
end
$$;
comment on function aetherflow.grant_emit(text) is
    'Let a role emit, and nothing else.';

revoke execute on all functions in schema aetherflow from public;
