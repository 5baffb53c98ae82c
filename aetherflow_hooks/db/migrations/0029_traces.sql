-- The trace in which an event is emitted, so that attempts are spans of it: a setting, and no argument of emit, so
-- that a library can say it once for all that a transaction does, and who emits as before goes on as before.
-- The setting has that name in whatever schema. And endpoints that want to be told of it.

alter table aetherflow.events add column traceparent text collate "C";
comment on column aetherflow.events.traceparent is 'The trace in which it was emitted, as W3C Trace Context has it; null: none was told.';
alter table aetherflow.endpoints add column traced boolean not null default false;
comment on column aetherflow.endpoints.traced is 'Its requests carry traceparent.';

create or replace function aetherflow.emit(
    type text,
    data text,
    tenant text default '',
    idempotency_key text default null,
    deliver_at timestamptz default null,
    expires_at timestamptz default null,
    ordering_key text default null,
    channels text[] default null
) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    numbered constant xid8 := pg_current_xact_id();  -- before the moment: engines rely on that
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
    channel text;
    known_channels text[];  -- each once; null where there is none
    traceparent text := left(current_setting('aetherflow' || '.traceparent', true), 55);
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
    if emit.channels is not null then
        foreach channel in array emit.channels loop
            if (channel ~ '^[A-Za-z0-9_.:-]{1,64}$') is not true then
                raise exception using errcode = 'invalid_parameter_value', message = format(
                    'aetherflow.emit: the channel %L is not 1 to 64 characters of A-Z a-z 0-9 _ . : -', left(channel, 200));
            end if;
            if (channel = any (known_channels)) is not true then
                known_channels := known_channels || channel;
            end if;
            if cardinality(known_channels) > 10 then
                raise exception using errcode = 'invalid_parameter_value',
                    message = 'aetherflow.emit: an event has at most 10 channels, and more are given';
            end if;
        end loop;
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

    -- What is no trace context is none, since no event is to be lost for that (W3C Trace Context, 4.3).
    if (traceparent ~ '^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$') is not true then
        traceparent := null;
    end if;

    -- Only where no engine has run for days is a partition missing; emit helps itself then.
    if emitted_at >= control.events_until then
        perform aetherflow.make_partitions(2);
    end if;

    insert into aetherflow.events (shard, id, tenant, type, data, emitted_at, deliver_at, expires_at, ordering_key,
                                   channels, traceparent)
    values (event_shard, event_id, emit.tenant, emit.type, emit.data, emitted_at, emit.deliver_at, emit.expires_at,
            emit.ordering_key, known_channels, traceparent);
    insert into aetherflow.outbox (shard, due_at, event_id, tenant, type, expires_at, ordering_key, channels)
    values (event_shard, due_at, event_id, emit.tenant, emit.type, emit.expires_at, emit.ordering_key,
            to_jsonb(known_channels));

    -- A notification makes commits wait for each other, so it is only for an engine that asks. Under
    -- load none does, and to know that takes one look, not a join.
    if due_at < emitted_at + interval '2 seconds' and exists (select from aetherflow.engines e where e.asleep) then
        if exists (
            select from aetherflow.shards s join aetherflow.engines e on e.id = s.owner
            where s.shard = event_shard and e.asleep
        ) then
            perform pg_notify('aetherflow.wake', 'e' || event_shard);
        end if;
    end if;
    return event_id;
end
$$;
