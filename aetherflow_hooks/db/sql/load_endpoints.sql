-- load_endpoints: endpoints with their secrets in force, the newest first.
--   $1 endpoint_ids text[]
-- returns id, tenant, shard, version, url, rate_per_second, burst, max_in_flight, timeout_seconds, retry_schedule_seconds, secrets, secrets_end_in_seconds
select e.id, e.tenant, e.shard, e.version, e.url, e.rate_per_second, e.burst, e.max_in_flight, e.timeout_seconds,
       e.retry_schedule_seconds, s.secrets, s.secrets_end_in_seconds
from aetherflow.endpoints e
join lateral (
    select array_agg(k.secret order by k.made_at desc) as secrets,
           -- an endless one gives null: infinity has no distance from now
           array_agg(case when isfinite(k.ends_at) then extract(epoch from k.ends_at - now())::double precision end
                     order by k.made_at desc) as secrets_end_in_seconds
    from aetherflow.secrets k
    where k.endpoint_id = e.id and k.ends_at > now()
) s on true
where e.id = any ($1) and e.state <> 'deleted'
