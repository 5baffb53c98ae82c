-- list_endpoints: endpoints with their patterns, in the order of their making, behind a place.
--   $1 tenant text
--   $2 id text
--   $3 labels text[]
--   $4 after_at timestamptz
--   $5 after_id text
--   $6 rows_max bigint
-- returns id, tenant, version, url, description, state, state_reason, failing_since, events, headers, public_keys, certificate, certificate_expires_at, rate_per_second, burst, max_in_flight, timeout_seconds, retry_schedule_seconds, ordering, filter, channels, payload_version, traced, labels, metadata, polled, secret_waits, created_at, updated_at
--
-- Null leaves a filter out. Their names and keys are looked up for those alone that are told.
select e.id, e.tenant, e.version, e.url, e.description, e.state, e.state_reason, e.failing_since,
       array(select s.pattern from aetherflow.subscriptions s where s.endpoint_id = e.id order by s.pattern) as events,
       array(select h.name from aetherflow.headers h where h.endpoint_id = e.id order by h.name) as headers,
       array(select k.public_key from aetherflow.secrets k
             where k.endpoint_id = e.id and k.ends_at > now() and k.public_key is not null
             order by k.leads_at = 'infinity', k.leads_at desc) as public_keys,
       c.subject as certificate, c.expires_at as certificate_expires_at,
       e.rate_per_second, e.burst, e.max_in_flight, e.timeout_seconds, e.retry_schedule_seconds, e.ordering,
       e.filter::text as filter, coalesce(e.channels, '{}') as channels, e.payload_version, e.traced, e.labels, e.metadata, e.polled,
       exists (
           select from aetherflow.secrets k where k.endpoint_id = e.id and k.leads_at = 'infinity' and k.ends_at > now()
       ) as secret_waits,
       e.created_at, e.updated_at
from (
    select e.* from aetherflow.endpoints e
    where ($1::text is null or e.tenant = $1) and ($2::text is null or e.id = $2)
      and ($3::text[] is null or e.labels @> $3) and e.state <> 'deleted'
      and (e.created_at, e.id) > (coalesce($4::timestamptz, '-infinity'), coalesce($5::text, ''))
    order by e.created_at, e.id
    limit $6
) e
left join aetherflow.certificates c on c.endpoint_id = e.id
order by e.created_at, e.id
