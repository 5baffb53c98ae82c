-- return_deliveries: give back deliveries that were leased and not sent, their attempt uncounted.
--   $1 shard smallint
--   $2 endpoint_ids text[]
--   $3 event_ids text[]
--   $4 tokens bigint[]
-- returns endpoint_id
-- walks deliveries_pkey
update aetherflow.deliveries d
set leased_until = '-infinity', lease_token = 0, attempt = d.attempt - 1
from unnest($2::text[], $3::text[], $4::bigint[]) as r (endpoint_id, event_id, token)
where d.shard = $1 and d.endpoint_id = r.endpoint_id and d.event_id = r.event_id and d.lease_token = r.token
returning d.endpoint_id
