-- change_endpoint: write an endpoint anew, if nobody has changed it since it was looked at.
--   $1 id text
--   $2 version integer
--   $3 url text
--   $4 description text
--   $5 rate_per_second double precision
--   $6 burst integer
--   $7 max_in_flight integer
--   $8 timeout_seconds double precision
--   $9 retry_schedule_seconds double precision[]
--   $10 ordering text
--   $11 patterns text[]
--   $12 lower_names_gone text[]
--   $13 header_names text[]
--   $14 header_values text[]
--   $15 filter text
--   $16 labels text[]
--   $17 metadata json
--   $18 channels text[]
--   $19 payload_version text
--   $20 traced boolean
-- returns id
--
-- No row: there is none of this version. A pattern that stays keeps its age, since an endpoint gets
-- what is emitted after it has asked for it. Where the URL is another one, how the last one did is
-- forgotten. A header is replaced also where its name is written otherwise.
with changed as (
    update aetherflow.endpoints e
    set url = $3, description = $4, rate_per_second = $5, burst = $6, max_in_flight = $7, timeout_seconds = $8,
        retry_schedule_seconds = $9, ordering = $10, filter = $15::text::jsonpath, labels = $16, metadata = $17,
        channels = nullif($18::text[], '{}'), payload_version = $19, traced = $20,
        version = e.version + 1, updated_at = clock_timestamp(),
        failing_since = case when e.url = $3 then e.failing_since end,
        failing_told_at = case when e.url = $3 then e.failing_told_at end
    where e.id = $1 and e.version = $2 and e.state <> 'deleted'
    returning e.id, e.tenant, e.channels
), unsubscribed as (
    delete from aetherflow.subscriptions s
    using changed c
    where s.endpoint_id = c.id and s.pattern <> all ($11::text[])
), subscribed as (
    insert into aetherflow.subscriptions as s (tenant, pattern, endpoint_id, channels)
    select c.tenant, p.pattern, c.id, c.channels
    from changed c cross join (select distinct unnest($11::text[])) as p (pattern)
    on conflict (tenant, pattern, endpoint_id) do update set channels = excluded.channels
    where s.channels is distinct from excluded.channels
), taken as (
    delete from aetherflow.headers h
    using changed c
    where h.endpoint_id = c.id and lower(h.name) = any ($12::text[]) and h.name <> all ($13::text[])
), given as (
    insert into aetherflow.headers (endpoint_id, name, value)
    select c.id, h.name, h.value from changed c cross join unnest($13::text[], $14::text[]) as h (name, value)
    on conflict (endpoint_id, name) do update set value = excluded.value
)
select id from changed
