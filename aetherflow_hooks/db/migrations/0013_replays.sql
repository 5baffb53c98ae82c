-- Replays: many deliveries made again, or made for an endpoint that was not there before.

create table aetherflow.replays (
    id               text collate "C" primary key,
    state            text not null default 'running' check (state in ('running', 'done', 'cancelled')),
    tenant           text collate "C",
    endpoint_id      text collate "C",
    pattern          text collate "C",
    since            timestamptz not null,
    until            timestamptz not null,
    only_failed      boolean not null,
    rate_per_second  double precision check (rate_per_second > 0),
    endpoint_at      text collate "C" not null default '',
    event_at         text collate "C" not null default '',
    made             bigint not null default 0,
    due_at           timestamptz not null default now(),
    created_at       timestamptz not null default clock_timestamp(),
    ended_at         timestamptz
) with (fillfactor = 50);
comment on table aetherflow.replays is 'What is to be sent again: an engine makes its deliveries a part at a time, and writes down how far it has come.';
comment on column aetherflow.replays.id is 'rpl_ and 12 random hex digits.';
comment on column aetherflow.replays.state is 'running: there may be more to make; done: there is not; cancelled: no more is made.';
comment on column aetherflow.replays.tenant is 'Only endpoints of this tenant; null: of all.';
comment on column aetherflow.replays.endpoint_id is 'Only this endpoint; null: all.';
comment on column aetherflow.replays.pattern is 'Only events of these types; null: all.';
comment on column aetherflow.replays.since is 'Only events emitted then or later.';
comment on column aetherflow.replays.until is 'Only events emitted earlier.';
comment on column aetherflow.replays.only_failed is 'Only deliveries that were given up; else whatever the endpoint wants by now.';
comment on column aetherflow.replays.rate_per_second is 'Deliveries that are made per second; null: as many as can be.';
comment on column aetherflow.replays.endpoint_at is 'The endpoint that it has come to.';
comment on column aetherflow.replays.event_at is 'The last event of that endpoint that it has looked at.';
comment on column aetherflow.replays.made is 'Deliveries made so far.';
comment on column aetherflow.replays.due_at is 'No more is made before.';
comment on column aetherflow.replays.created_at is 'When it was asked for.';
comment on column aetherflow.replays.ended_at is 'When it was done or cancelled.';
comment on index aetherflow.replays_pkey is 'A replay by its id.';
create index replays_running on aetherflow.replays (due_at) where state = 'running';
comment on index aetherflow.replays_running is 'Those that have more to make.';
create index replays_created on aetherflow.replays (created_at, id);
comment on index aetherflow.replays_created is 'Replays by age.';

comment on column aetherflow.deliveries.trigger is 'What its next attempt was asked for by: manual or replay; null: its schedule.';
comment on column aetherflow.attempts.trigger is 'What it was made by: manual, somebody asked for it; replay, as one of many; null: its schedule.';

insert into aetherflow.rights (role, object, privileges) values
    ('engine', 'replays', 'select, insert, update, delete'),
    ('read', 'replays', 'select');
select aetherflow.apply_rights();
