-- latest_attempts: of the attempts that began within the last seconds those that ended last, the last one first.
--   $1 seconds double precision
--   $2 looked_max bigint
--   $3 rows_max bigint
-- returns endpoint_id, event_id, attempt, trigger, started_at, duration_ms, outcome, verdict, status, error, tenant, type
select a.endpoint_id, a.event_id, a.attempt, a.trigger, a.started_at, a.duration_ms, a.outcome, a.verdict, a.status,
       a.error, e.tenant, v.type
from (
    select began.*, began.started_at + make_interval(secs => began.duration_ms / 1000.0) as ended_at
    from (
        select a.endpoint_id, a.event_id, a.attempt, a.trigger, a.started_at, a.duration_ms, a.outcome, a.verdict, a.status,
               a.error
        from aetherflow.attempts a
        where a.shard >= 0 and a.started_at > now() - make_interval(secs => $1)
        order by a.started_at desc
        limit $2
    ) began
    order by ended_at desc
    limit $3
) a
left join lateral (select e.tenant from aetherflow.endpoints e where e.id = a.endpoint_id limit 1) e on true
left join lateral (
    select v.type from aetherflow.events v where v.shard = aetherflow.shard_of(a.event_id) and v.id = a.event_id limit 1
) v on true
order by a.ended_at desc
