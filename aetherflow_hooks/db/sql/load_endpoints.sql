-- load_endpoints: endpoints to POST to, active or with $2 in any state and polled too, their secrets in force, and how they did last.
--   $1 endpoint_ids text[]
--   $2 any_state boolean
-- returns id, tenant, shard, version, url, rate_per_second, burst, max_in_flight, timeout_seconds, retry_schedule_seconds, ordering, payload_version, traced, secrets, secrets_end_in_seconds, header_names, header_values, certificate, is_failing, has_answered
--
-- The leading secret comes first. Whether the last attempt of a day was answered tells an engine that has just started which
-- endpoints it may trust; null: there was none.
select e.id, e.tenant, e.shard, e.version, e.url, e.rate_per_second, e.burst, e.max_in_flight, e.timeout_seconds,
       e.retry_schedule_seconds, e.ordering, e.payload_version, e.traced, s.secrets, s.secrets_end_in_seconds,
       h.header_names, h.header_values, c.pem as certificate, e.failing_since is not null as is_failing, last.outcome = 'answered' as has_answered
from unnest($1::text[]) as k (id)
cross join lateral (
    select e.* from aetherflow.endpoints e
    where e.id between k.id and k.id and (e.state = 'active' and not e.polled or ($2 and e.state <> 'deleted'))
    order by e.id
    limit 1
) e
cross join lateral (
    select array_agg(k.secret order by k.place) as secrets,
           -- an endless one gives null: infinity has no distance from now
           array_agg(case when isfinite(k.ends_at) then extract(epoch from k.ends_at - now())::double precision end
                     order by k.place) as secrets_end_in_seconds
    from (
        select k.secret, k.ends_at,
               row_number() over (order by k.leads_at = 'infinity', k.leads_at desc, k.made_at desc) as place
        from aetherflow.secrets k
        where k.endpoint_id = e.id and k.ends_at > now()
    ) k
) s
cross join lateral (
    select array_agg(h.name order by h.name) as header_names, array_agg(h.value order by h.name) as header_values
    from aetherflow.headers h
    where h.endpoint_id = e.id
) h
left join lateral (
    select c.pem from aetherflow.certificates c where c.endpoint_id between e.id and e.id order by c.endpoint_id limit 1
) c on true
left join lateral (
    select a.outcome from aetherflow.attempts a
    where a.shard = e.shard and a.endpoint_id = e.id and a.started_at > now() - interval '1 day'
    order by a.started_at desc
    limit 1
) last on true
