-- The tables. `aetherflow` stands for the schema of the settings wherever it is followed by a dot.
--
-- Whatever is written per event or per delivery leads its key with `shard`, so that each hot
-- statement touches one shard: an engine owns whole shards, and a distributed Postgres can spread
-- them. Ids are text in the form that people and receivers see, with the "C" collation, so that
-- their order is the order of their bytes. No table on the way of an event has a foreign key: the
-- checks would cost more than the work, and every statement says itself what must exist.

create table aetherflow.control (
    one             boolean primary key default true check (one),
    data_max_bytes  integer not null default 1048576,
    events_days     integer not null default 30,
    events_until    timestamptz not null default '-infinity'
);
comment on table aetherflow.control is 'One row: what emit must know of the settings.';
comment on column aetherflow.control.one is 'Keeps the table at one row.';
comment on column aetherflow.control.data_max_bytes is 'The largest data that emit takes.';
comment on column aetherflow.control.events_days is 'How long events are kept; an event cannot be scheduled for later.';
comment on column aetherflow.control.events_until is 'Events of earlier moments have their partition.';
comment on index aetherflow.control_pkey is 'One row.';
insert into aetherflow.control default values;

create table aetherflow.engines (
    id          text collate "C" primary key,
    host        text not null,
    started_at  timestamptz not null default now(),
    seen_at     timestamptz not null default now(),
    asleep      boolean not null default false
) with (fillfactor = 50);
comment on table aetherflow.engines is 'One row per running engine.';
comment on column aetherflow.engines.id is 'Made anew at each start.';
comment on column aetherflow.engines.host is 'The machine''s name and the process id, for people.';
comment on column aetherflow.engines.started_at is 'When it started.';
comment on column aetherflow.engines.seen_at is 'When it last said that it lives.';
comment on column aetherflow.engines.asleep is 'It asks emit for a notification, since it has stopped looking often.';
comment on index aetherflow.engines_pkey is 'An engine by its id.';

create table aetherflow.shards (
    shard         smallint primary key,
    owner         text collate "C",
    leased_until  timestamptz not null default '-infinity'
) with (fillfactor = 25);
comment on table aetherflow.shards is 'Which engine works on which part of the events and endpoints.';
comment on column aetherflow.shards.shard is 'From 0; their number is fixed for good.';
comment on column aetherflow.shards.owner is 'The engine that last took it.';
comment on column aetherflow.shards.leased_until is 'Until then nobody else may take it.';
comment on index aetherflow.shards_pkey is 'A shard by its number.';

create table aetherflow.endpoints (
    id                      text collate "C" primary key,
    shard                   smallint not null,
    tenant                  text collate "C" not null default '',
    url                     text not null,
    description             text not null default '',
    state                   text not null default 'active'
                            check (state in ('active', 'paused', 'disabled', 'deleted')),
    state_reason            text not null default '',
    rate_per_second         double precision check (rate_per_second > 0),
    burst                   integer not null default 1 check (burst >= 1),
    max_in_flight           integer check (max_in_flight >= 1),
    timeout_seconds         double precision check (timeout_seconds > 0),
    retry_schedule_seconds  double precision[],
    version                 integer not null default 1,
    created_at              timestamptz not null default clock_timestamp(),
    updated_at              timestamptz not null default clock_timestamp()
);
comment on table aetherflow.endpoints is 'URLs that want events, with their limits and retry policy; their secrets are kept apart.';
comment on column aetherflow.endpoints.id is 'ep_ and 12 random hex digits.';
comment on column aetherflow.endpoints.shard is 'The shard of its deliveries.';
comment on column aetherflow.endpoints.tenant is 'Its owner; it gets events of the same tenant only.';
comment on column aetherflow.endpoints.url is 'Where to POST.';
comment on column aetherflow.endpoints.description is 'For people.';
comment on column aetherflow.endpoints.state is 'active: gets events; paused: they wait; disabled: it takes none; deleted: its work is being swept away.';
comment on column aetherflow.endpoints.state_reason is 'Why it is in that state, where an engine put it there.';
comment on column aetherflow.endpoints.rate_per_second is 'POSTs per second; null: no limit.';
comment on column aetherflow.endpoints.burst is 'POSTs that may go at once after a rest, where there is a rate.';
comment on column aetherflow.endpoints.max_in_flight is 'POSTs under way at once; null: the setting.';
comment on column aetherflow.endpoints.timeout_seconds is 'The whole attempt; null: the setting.';
comment on column aetherflow.endpoints.retry_schedule_seconds is 'The pause before each retry; null: the setting.';
comment on column aetherflow.endpoints.version is 'Rises with every change, so that engines notice.';
comment on column aetherflow.endpoints.created_at is 'When it was added.';
comment on column aetherflow.endpoints.updated_at is 'When it was last changed.';
comment on index aetherflow.endpoints_pkey is 'An endpoint by its id.';
create index endpoints_tenant on aetherflow.endpoints (tenant, id);
comment on index aetherflow.endpoints_tenant is 'A tenant''s endpoints.';

create table aetherflow.secrets (
    endpoint_id  text collate "C" not null,
    made_at      timestamptz not null default clock_timestamp(),
    ends_at      timestamptz not null default 'infinity',
    secret       text not null,
    primary key (endpoint_id, made_at)
);
comment on table aetherflow.secrets is 'The signing secrets of endpoints. Nobody but the engine reads this table.';
comment on column aetherflow.secrets.endpoint_id is 'Whose secret.';
comment on column aetherflow.secrets.made_at is 'The newest one makes X-AetherFlow-Signature.';
comment on column aetherflow.secrets.ends_at is 'When a replaced secret stops to sign.';
comment on column aetherflow.secrets.secret is 'The secret itself.';
comment on index aetherflow.secrets_pkey is 'An endpoint''s secrets in the order of their making.';

create table aetherflow.subscriptions (
    tenant       text collate "C" not null,
    pattern      text collate "C" not null,
    endpoint_id  text collate "C" not null,
    created_at   timestamptz not null default clock_timestamp(),
    primary key (tenant, pattern, endpoint_id)
);
comment on table aetherflow.subscriptions is 'Which endpoints want which events: an event goes to all whose pattern is one of its type''s.';
comment on column aetherflow.subscriptions.tenant is 'The endpoint''s.';
comment on column aetherflow.subscriptions.pattern is 'An event type, the start of one with .*, or *.';
comment on column aetherflow.subscriptions.endpoint_id is 'Who wants it.';
comment on column aetherflow.subscriptions.created_at is 'Earlier events are not sent by themselves.';
comment on index aetherflow.subscriptions_pkey is 'Fan-out: the endpoints of a tenant''s pattern.';
create index subscriptions_endpoint on aetherflow.subscriptions (endpoint_id);
comment on index aetherflow.subscriptions_endpoint is 'An endpoint''s patterns.';

create table aetherflow.event_types (
    type         text collate "C" primary key,
    description  text not null
);
comment on table aetherflow.event_types is 'The catalogue: types that are announced to customers. Others may be emitted too.';
comment on column aetherflow.event_types.type is 'The type.';
comment on column aetherflow.event_types.description is 'What it tells.';
comment on index aetherflow.event_types_pkey is 'A type by its name.';
insert into aetherflow.event_types (type, description) values
    ('workflow.created', 'A workflow was created.'),
    ('workflow.updated', 'A workflow''s configuration changed.'),
    ('workflow.deleted', 'A workflow was deleted.'),
    ('workflow.executed', 'A workflow started to run.'),
    ('workflow.completed', 'A workflow ran to its end.'),
    ('workflow.failed', 'A run of a workflow failed.'),
    ('integration.connected', 'An integration was connected.'),
    ('integration.disconnected', 'The connection of an integration was lost.'),
    ('integration.error', 'An integration reported an error.'),
    ('user.invited', 'Somebody was invited to the team.'),
    ('user.joined', 'Somebody joined the workspace.'),
    ('billing.updated', 'Billing information changed.');

create table aetherflow.idempotency_keys (
    shard       smallint not null,
    tenant      text collate "C" not null,
    key         text collate "C" not null,
    event_id    text collate "C" not null,
    primary key (shard, tenant, key)
);
comment on table aetherflow.idempotency_keys is 'Which event a key stands for; beside the events, since a key is unique over all their days.';
comment on column aetherflow.idempotency_keys.shard is 'Made from tenant and key.';
comment on column aetherflow.idempotency_keys.tenant is 'Keys of different tenants have nothing to do with each other.';
comment on column aetherflow.idempotency_keys.key is 'What the application gave.';
comment on column aetherflow.idempotency_keys.event_id is 'The event that was emitted with it first.';
comment on index aetherflow.idempotency_keys_pkey is 'One event per key.';
create index idempotency_keys_event on aetherflow.idempotency_keys (shard, event_id);
comment on index aetherflow.idempotency_keys_event is 'Retention: keys by the age of their event.';

create table aetherflow.events (
    shard       smallint not null,
    id          text collate "C" not null,
    tenant      text collate "C" not null,
    type        text collate "C" not null,
    data        text not null,
    emitted_at  timestamptz not null,
    deliver_at  timestamptz,
    expires_at  timestamptz,
    primary key (shard, id)
) partition by range (id);
comment on table aetherflow.events is 'What happened: written once, never changed, dropped by the day.';
comment on column aetherflow.events.shard is 'Made from the end of the id.';
comment on column aetherflow.events.id is 'evt_, 13 hex digits of the microseconds since 1970, 11 random ones: ids sort by time, and their days are the partitions.';
comment on column aetherflow.events.tenant is 'The owner; empty where tenants are not used.';
comment on column aetherflow.events.type is 'What kind of thing happened.';
comment on column aetherflow.events.data is 'A JSON object, byte for byte as it was given.';
comment on column aetherflow.events.emitted_at is 'When emit was called.';
comment on column aetherflow.events.deliver_at is 'Not to be sent before, where that was asked.';
comment on column aetherflow.events.expires_at is 'Not to be sent after, where that was asked.';
comment on index aetherflow.events_pkey is 'An event by its shard and id.';

create table aetherflow.outbox (
    shard           smallint not null,
    due_at          timestamptz not null,
    event_id        text collate "C" not null,
    tenant          text collate "C" not null,
    type            text collate "C" not null,
    expires_at      timestamptz,
    after_endpoint  text collate "C" not null default '',
    begun           boolean not null generated always as (after_endpoint <> '') stored,
    primary key (shard, begun, due_at, event_id)
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);
comment on table aetherflow.outbox is 'Events still to be fanned out: a row is work to do, and its absence is work done.';
comment on column aetherflow.outbox.shard is 'The event''s.';
comment on column aetherflow.outbox.due_at is 'Not to be fanned out before.';
comment on column aetherflow.outbox.event_id is 'The event.';
comment on column aetherflow.outbox.tenant is 'Copied, so that fan-out does not touch the wide event.';
comment on column aetherflow.outbox.type is 'Copied likewise.';
comment on column aetherflow.outbox.expires_at is 'Copied likewise.';
comment on column aetherflow.outbox.after_endpoint is 'How far an event for very many endpoints has come.';
comment on column aetherflow.outbox.begun is 'It has come to the first of very many endpoints; the others are reached beside what is new.';
comment on index aetherflow.outbox_pkey is 'What is due in a shard, oldest first; what has begun stands apart.';

create table aetherflow.deliveries (
    shard         smallint not null,
    event_shard   smallint not null,
    endpoint_id   text collate "C" not null,
    event_id      text collate "C" not null,
    due_at        timestamptz not null,
    expires_at    timestamptz,
    leased_until  timestamptz not null default '-infinity',
    lease_token   bigint not null default 0,
    attempt       smallint not null default 0,
    primary key (shard, endpoint_id, event_id)
) with (fillfactor = 60, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0,
        autovacuum_analyze_threshold = 50000, vacuum_truncate = off);
-- What a lease changes stands last and is never null, so that the log of it holds these columns only.
comment on table aetherflow.deliveries is 'Undelivered work only: what is delivered or given up has left, so cost follows the work and not the history.';
comment on column aetherflow.deliveries.shard is 'The endpoint''s.';
comment on column aetherflow.deliveries.event_shard is 'The event''s, to find its data.';
comment on column aetherflow.deliveries.endpoint_id is 'Where it goes.';
comment on column aetherflow.deliveries.event_id is 'What goes there.';
comment on column aetherflow.deliveries.due_at is 'Not to be attempted before.';
comment on column aetherflow.deliveries.expires_at is 'Not to be attempted after.';
comment on column aetherflow.deliveries.leased_until is 'Until then an engine is at it. In no index, so that taking a lease rewrites none.';
comment on column aetherflow.deliveries.lease_token is 'Names the lease; whoever writes the result shows it. 0: nobody.';
comment on column aetherflow.deliveries.attempt is 'Attempts begun so far; it rises when a lease is taken, so that a delivery that kills its engine runs out of them too.';
comment on index aetherflow.deliveries_pkey is 'One delivery per endpoint and event.';
create index deliveries_due on aetherflow.deliveries (shard, endpoint_id, due_at);
comment on index aetherflow.deliveries_due is 'Leasing: what is due for an endpoint, oldest first.';

create table aetherflow.dead (
    shard        smallint not null,
    endpoint_id  text collate "C" not null,
    event_id     text collate "C" not null,
    event_shard  smallint not null,
    attempts     smallint not null,
    reason       text not null check (reason in ('exhausted', 'gone', 'expired')),
    died_at      timestamptz not null default now(),
    primary key (shard, endpoint_id, event_id)
);
comment on table aetherflow.dead is 'Deliveries that were given up.';
comment on column aetherflow.dead.shard is 'The endpoint''s.';
comment on column aetherflow.dead.endpoint_id is 'Where it was to go.';
comment on column aetherflow.dead.event_id is 'What was to go there.';
comment on column aetherflow.dead.event_shard is 'The event''s shard, to find its data.';
comment on column aetherflow.dead.attempts is 'How many were made.';
comment on column aetherflow.dead.reason is 'exhausted: every attempt failed; gone: it answered 410; expired: too late to send it.';
comment on column aetherflow.dead.died_at is 'When it was given up.';
comment on index aetherflow.dead_pkey is 'A dead delivery by its endpoint and event.';
create index dead_died on aetherflow.dead (shard, died_at);
comment on index aetherflow.dead_died is 'Retention: the dead by age.';

create table aetherflow.attempts (
    shard        smallint not null,
    attempt      smallint not null,
    status       smallint,
    endpoint_id  text collate "C" not null,
    event_id     text collate "C" not null,
    started_at   timestamptz not null,
    duration_ms  integer not null,
    outcome      text not null check (outcome in ('answered', 'timed_out', 'not_reached', 'blocked')),
    verdict      text not null check (verdict in ('delivered', 'retry', 'dead', 'late')),
    error        text,
    response     bytea
) partition by range (started_at);
comment on table aetherflow.attempts is 'One row per POST: history, dropped by the day.';
comment on column aetherflow.attempts.shard is 'The endpoint''s.';
comment on column aetherflow.attempts.attempt is 'From 1.';
comment on column aetherflow.attempts.status is 'The HTTP status; null where no answer came.';
comment on column aetherflow.attempts.endpoint_id is 'Where it went.';
comment on column aetherflow.attempts.event_id is 'What went there.';
comment on column aetherflow.attempts.started_at is 'When it began.';
comment on column aetherflow.attempts.duration_ms is 'How long it took.';
comment on column aetherflow.attempts.outcome is 'How it ended.';
comment on column aetherflow.attempts.verdict is 'What followed: delivered, another attempt, the end, or nothing, since the lease was lost (late).';
comment on column aetherflow.attempts.error is 'Why it failed, in words; null where it did not.';
comment on column aetherflow.attempts.response is 'The start of a failing answer, as it came.';
create index attempts_endpoint on aetherflow.attempts (shard, endpoint_id, started_at);
comment on index aetherflow.attempts_endpoint is 'An endpoint''s attempts by time.';
create index attempts_event on aetherflow.attempts (event_id);
comment on index aetherflow.attempts_event is 'An event''s attempts.';
