-- Tallies: attempts counted by the minute and the hour, so that numbers need no look at history.

create table aetherflow.tallies (
    shard           smallint not null,
    span            smallint not null check (span in (60, 3600)),
    starts_at       timestamptz not null,
    part            bigint not null,
    subject         text collate "C" not null,
    attempts        integer not null,
    delivered       integer not null,
    answered_429    integer not null,
    answered_4xx    integer not null,
    answered_5xx    integer not null,
    answered_other  integer not null,
    timed_out       integer not null,
    not_reached     integer not null,
    blocked         integer not null,
    late            integer not null,
    buckets         smallint[] not null,
    counts          integer[] not null,
    primary key (shard, subject, starts_at, span, part)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
-- A minute is written again and again while it lasts, in place: no index holds what changes, and half
-- of each page is left free for it.
comment on table aetherflow.tallies is 'Attempts counted by the minute and, when that is two days old, by the hour: for an endpoint, for a tenant, for all.';
comment on column aetherflow.tallies.shard is 'The endpoint''s; for a tenant and for all any: whatever engine counts writes rows of its own.';
comment on column aetherflow.tallies.span is 'How long it is, in seconds: a minute or an hour.';
comment on column aetherflow.tallies.starts_at is 'Attempts that began from then on are counted.';
comment on column aetherflow.tallies.part is 'One time has several rows where several engines have counted, or one of them twice; they add up.';
comment on column aetherflow.tallies.subject is 'What is counted: an endpoint by its id, a tenant as tenant: and its name, or all.';
comment on column aetherflow.tallies.attempts is 'Attempts whose results counted: all but the late ones.';
comment on column aetherflow.tallies.delivered is 'Those that delivered.';
comment on column aetherflow.tallies.answered_429 is 'Those that were answered with 429, too many requests.';
comment on column aetherflow.tallies.answered_4xx is 'Those that were answered with another status from 400 to 499.';
comment on column aetherflow.tallies.answered_5xx is 'Those that were answered with a status from 500 to 599.';
comment on column aetherflow.tallies.answered_other is 'Those that were answered with any other status, a redirect mostly.';
comment on column aetherflow.tallies.timed_out is 'Those that took too long.';
comment on column aetherflow.tallies.not_reached is 'Those that got no usable answer.';
comment on column aetherflow.tallies.blocked is 'Those that were not let out, since the URL leads where we do not go.';
comment on column aetherflow.tallies.late is 'Attempts whose lease had been lost: their results changed nothing.';
comment on column aetherflow.tallies.buckets is 'Into which buckets the durations fall of those that were answered or took too long, from 0: see rules/tallies.py.';
comment on column aetherflow.tallies.counts is 'How many fall into each of these.';
comment on index aetherflow.tallies_pkey is 'What was counted of a subject, by time.';
create index tallies_age on aetherflow.tallies (shard, span, starts_at);
comment on index aetherflow.tallies_age is 'Retention: tallies by age.';

alter table aetherflow.engines add column in_flight integer not null default 0;
comment on column aetherflow.engines.in_flight is 'POSTs that were under way when it last said that it lives.';

insert into aetherflow.rights (role, object, privileges) values
    ('engine', 'tallies', 'select, insert, update, delete'),
    ('read', 'tallies', 'select');
select aetherflow.apply_rights();
