-- add_endpoint: register an endpoint with its secret, the patterns it wants and its own headers.
--   $1 id text
--   $2 tenant text
--   $3 url text
--   $4 description text
--   $5 rate_per_second double precision
--   $6 burst integer
--   $7 max_in_flight integer
--   $8 timeout_seconds double precision
--   $9 retry_schedule_seconds double precision[]
--   $10 secret text
--   $11 patterns text[]
--   $12 header_names text[]
--   $13 header_values text[]
--   $14 public_key text
--   $15 certificate_pem text
--   $16 certificate_subject text
--   $17 certificate_expires_at timestamptz
--   $18 ordering text
--   $19 filter text
--   $20 labels text[]
--   $21 metadata json
--   $22 channels text[]
--   $23 polled boolean
--   $24 payload_version text
--   $25 traced boolean
-- returns id
with added as (
    insert into aetherflow.endpoints (id, shard, tenant, url, description, rate_per_second, burst, max_in_flight,
                                      timeout_seconds, retry_schedule_seconds, ordering, filter, labels, metadata,
                                      channels, polled, payload_version, traced)
    values ($1, aetherflow.shard_of($1), $2, $3, $4, $5, $6, $7, $8, $9, $18,
            $19::text::jsonpath, $20, $21, nullif($22::text[], '{}'), $23, $24, $25)
    returning id, tenant, channels
), kept as (
    insert into aetherflow.secrets (endpoint_id, secret, public_key) select a.id, $10, $14 from added a
), heading as (
    insert into aetherflow.headers (endpoint_id, name, value)
    select a.id, h.name, h.value from added a cross join unnest($12::text[], $13::text[]) as h (name, value)
), certified as (
    insert into aetherflow.certificates (endpoint_id, pem, subject, expires_at)
    select a.id, $15, $16, $17 from added a where $15::text is not null
), subscribed as (
    insert into aetherflow.subscriptions (tenant, pattern, endpoint_id, channels)
    select a.tenant, p.pattern, a.id, a.channels from added a cross join (select distinct unnest($11::text[])) as p (pattern)
)
select id from added
