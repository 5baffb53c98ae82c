-- latest_attempts: the attempts that began within the last seconds, the newest first.
--   $1 seconds double precision
--   $2 rows_max bigint
-- returns endpoint_id, event_id, attempt, trigger, started_at, duration_ms, outcome, verdict, status, error, tenant, type
select a.endpoint_id, a.event_id, a.attempt, a.trigger, a.started_at, a.duration_ms, a.outcome, a.verdict, a.status,
       a.error, e.tenant, v.type
from (
    select a.* from aetherflow.attempts a
    where a.shard >= 0 and a.started_at > now() - make_interval(secs => $1)
    order by a.started_at desc
    limit $2
) a
left join lateral (select e.tenant from aetherflow.endpoints e where e.id = a.endpoint_id limit 1) e on true
left join lateral (
    select v.type from aetherflow.events v where v.shard = aetherflow.shard_of(a.event_id) and v.id = a.event_id limit 1
) v on true
order by a.started_at desc
