-- record_attempts: write the results of one shard: delivered ones leave, failed ones wait, halt or die.
--   $1 shard smallint
--   $2 endpoint_ids text[]
--   $3 event_ids text[]
--   $4 tokens bigint[]
--   $5 attempts smallint[]
--   $6 verdicts text[]
--   $7 retry_in_seconds double precision[]
--   $8 reasons text[]
--   $9 outcomes text[]
--   $10 statuses smallint[]
--   $11 started_ats timestamptz[]
--   $12 durations_ms integer[]
--   $13 errors text[]
--   $14 responses bytea[]
--   $15 notices text[]
--   $16 exhausted_type text
--   $17 disabled_type text
-- returns kind, endpoint_id, event_id, attempt
-- walks deliveries_pkey
--
-- Every change shows the token of its lease: a result that comes after the lease was lost changes
-- nothing, is returned as late, and its attempt is kept as that. Running it twice does no more than
-- once. A result without an outcome is of a delivery that was not worth sending. An endpoint that
-- is gone is disabled and returned as disabled. What operators want to know is emitted here, so
-- that it is told if and only if it has happened. The late ones are looked for, at the cost of a
-- comparison of all with all, only where fewer rows were changed than there are results. Each row
-- is looked up by its key before it is changed by its place: as a join, a plan that was made for an
-- empty table could read a whole shard for it. So could an equality of the event, by the other
-- index, and an estimate of more than a few rows; hence the order and the limit.
with results as materialized (
    select * from unnest(
        $2::text[], $3::text[], $4::bigint[], $5::smallint[], $6::text[], $7::double precision[], $8::text[],
        $9::text[], $10::smallint[], $11::timestamptz[], $12::integer[], $13::text[], $14::bytea[], $15::text[]
    ) with ordinality as r (endpoint_id, event_id, token, attempt, verdict, retry_in_seconds, reason,
                            outcome, status, started_at, duration_ms, error, response, notice, place)
), found as materialized (
    select r.*, d.row_at, d.trigger
    from results r
    cross join lateral (
        select d.ctid as row_at, d.trigger from aetherflow.deliveries d
        where d.shard = $1 and d.endpoint_id = r.endpoint_id and d.event_id between r.event_id and r.event_id
        order by d.event_id
        limit 1
    ) d
    limit cardinality($2)
), settled as (
    delete from aetherflow.deliveries d
    using found f
    where f.verdict in ('delivered', 'dead') and d.shard = $1 and d.ctid = f.row_at and d.lease_token = f.token
    returning d.event_shard, d.attempt - (f.outcome is null)::integer as attempts, f.*
), again as (
    update aetherflow.deliveries d
    set due_at = case f.verdict when 'halted' then 'infinity' else now() + make_interval(secs => f.retry_in_seconds) end,
        leased_until = '-infinity', lease_token = 0, trigger = null
    from found f
    where f.verdict in ('retry', 'halted') and d.shard = $1 and d.ctid = f.row_at and d.lease_token = f.token
    returning f.*
), held as (
    select s.endpoint_id, s.event_id, s.attempt, s.started_at, s.duration_ms, s.outcome, s.verdict, s.status,
           s.error, s.response, s.trigger, s.place
    from settled s
    union all
    select a.endpoint_id, a.event_id, a.attempt, a.started_at, a.duration_ms, a.outcome, a.verdict, a.status,
           a.error, a.response, a.trigger, a.place
    from again a
), late as (
    select r.endpoint_id, r.event_id, r.attempt, r.started_at, r.duration_ms, r.outcome, 'late' as verdict,
           r.status, r.error,
           -- expunging has taken the delivery away, so what is under way then comes late
           case when (
               select v.expunged_at from aetherflow.events v
               where v.shard = aetherflow.shard_of(r.event_id) and v.id = r.event_id
               limit 1
           ) is null then r.response end as response,
           null as trigger
    from results r
    where (select count(*) from held) < cardinality($2)
      and not exists (select from held h where h.place = r.place)
      and not exists (
          select from aetherflow.attempts a
          where a.shard = $1 and a.endpoint_id = r.endpoint_id and a.started_at = r.started_at
            and a.event_id = r.event_id and a.attempt = r.attempt
      )
), logged as (
    insert into aetherflow.attempts (shard, endpoint_id, event_id, attempt, started_at, duration_ms, outcome,
                                     verdict, status, error, response, trigger)
    select $1, h.endpoint_id, h.event_id, h.attempt, h.started_at, h.duration_ms, h.outcome, h.verdict, h.status,
           h.error, h.response, h.trigger
    from held h
    where h.outcome is not null
    union all
    select $1, l.* from late l where l.outcome is not null
    returning endpoint_id, event_id, attempt, verdict
), buried as (
    insert into aetherflow.dead (shard, endpoint_id, event_id, event_shard, attempts, reason)
    select $1, s.endpoint_id, s.event_id, s.event_shard, s.attempts, s.reason
    from settled s
    where s.verdict = 'dead'
    on conflict (shard, endpoint_id, event_id) do update
    set attempts = excluded.attempts, reason = excluded.reason, died_at = excluded.died_at
), disabled as (
    update aetherflow.endpoints e
    set state = 'disabled', state_reason = 'it answered 410 Gone', version = e.version + 1,
        updated_at = clock_timestamp()
    from (
        select one.row_at
        from (select distinct s.endpoint_id from settled s where s.reason = 'gone') gone
        cross join lateral (
            select e.ctid as row_at from aetherflow.endpoints e
            where e.id between gone.endpoint_id and gone.endpoint_id and e.state in ('active', 'paused')
            order by e.id
            limit 1
            for update
        ) one
        limit cardinality($2)
    ) gone
    where e.ctid = gone.row_at and e.state in ('active', 'paused')
    returning e.id, e.tenant, e.state_reason
)
select 'late' as kind, l.endpoint_id, l.event_id, l.attempt from logged l where l.verdict = 'late'
union all
select 'disabled', d.id, null, null from disabled d
where aetherflow.emit($17::text, json_build_object(
    'endpoint', json_build_object('id', d.id, 'tenant', d.tenant), 'reason', d.state_reason)::text) is not null
union all
select 'exhausted', s.endpoint_id, null, null from (
    select s.endpoint_id, s.notice from settled s
    union all
    select a.endpoint_id, a.notice from again a
) s
where s.notice is not null and aetherflow.emit($16::text, s.notice) is not null
