-- return_deliveries: give back deliveries that were leased and not sent, their attempt uncounted.
--   $1 shard smallint
--   $2 endpoint_ids text[]
--   $3 event_ids text[]
--   $4 tokens bigint[]
-- returns endpoint_id
-- walks deliveries_pkey
with found as materialized (
    select r.token, d.row_at
    from unnest($2::text[], $3::text[], $4::bigint[]) as r (endpoint_id, event_id, token)
    cross join lateral (
        select d.ctid as row_at from aetherflow.deliveries d
        where d.shard = $1 and d.endpoint_id = r.endpoint_id and d.event_id between r.event_id and r.event_id
        order by d.event_id
        limit 1
    ) d
    limit cardinality($2)
)
update aetherflow.deliveries d
set leased_until = '-infinity', lease_token = 0, attempt = d.attempt - 1
from found f
where d.shard = $1 and d.ctid = f.row_at and d.lease_token = f.token
returning d.endpoint_id
