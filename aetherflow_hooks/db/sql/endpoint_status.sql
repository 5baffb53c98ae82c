-- endpoint_status: per endpoint, what waits now and how the last hour went.
--   $1 tenant text
-- returns id, tenant, url, state, waiting, in_flight, oldest_seconds, attempts, success_rate, p50_ms, p95_ms
select e.id, e.tenant, e.url, e.state,
       coalesce(work.waiting, 0) as waiting, coalesce(work.in_flight, 0) as in_flight, work.oldest_seconds,
       coalesce(hour.attempts, 0) as attempts, hour.success_rate, hour.p50_ms, hour.p95_ms
from aetherflow.endpoints e
left join (
    select d.endpoint_id,
           (count(*) filter (where d.leased_until <= now()))::integer as waiting,
           (count(*) filter (where d.leased_until > now()))::integer as in_flight,
           greatest(0, extract(epoch from now() - min(d.due_at) filter (where d.due_at < 'infinity')))::double precision as oldest_seconds
    from aetherflow.deliveries d
    group by d.endpoint_id
) work on work.endpoint_id = e.id
left join lateral (
    select count(*)::integer as attempts,
           avg((a.verdict = 'delivered')::integer)::double precision as success_rate,
           percentile_cont(0.5) within group (order by a.duration_ms) as p50_ms,
           percentile_cont(0.95) within group (order by a.duration_ms) as p95_ms
    from aetherflow.attempts a
    where a.shard = e.shard and a.endpoint_id = e.id and a.started_at > now() - interval '1 hour'
) hour on true
where e.state <> 'deleted' and ($1::text is null or e.tenant = $1)
order by e.created_at, e.id
