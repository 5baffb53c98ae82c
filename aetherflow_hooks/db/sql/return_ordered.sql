-- return_ordered: end leases of one endpoint with an order, whose taking may or may not have been done.
--   $1 shard smallint
--   $2 endpoint_id text
--   $3 token bigint
-- returns endpoint_id
--
-- They are taken by their keys, so they may lie anywhere: all that waits there is looked at. That is
-- for once, after a connection was lost.
update aetherflow.deliveries d
set leased_until = '-infinity', lease_token = 0, attempt = d.attempt - 1
where d.shard = $1 and d.endpoint_id = $2 and d.lease_token = $3
returning d.endpoint_id
