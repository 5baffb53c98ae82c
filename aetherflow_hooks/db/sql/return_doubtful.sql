-- return_doubtful: end leases whose taking may or may not have been carried out.
--   $1 shard smallint
--   $2 endpoint_ids text[]
--   $3 token bigint
--   $4 rows_max bigint
-- returns endpoint_id
-- walks deliveries_due
--
-- Leases are taken of what is due first, so they are looked for among an endpoint's first rows.
with doubtful as materialized (
    select d.row_at
    from unnest($2::text[]) as e (endpoint_id)
    cross join lateral (
        select d.ctid as row_at, d.lease_token from aetherflow.deliveries d
        where d.shard = $1 and d.endpoint_id = e.endpoint_id and d.due_at <= now()
        order by d.due_at
        limit $4
    ) d
    where d.lease_token = $3
    limit cardinality($2) * $4
)
update aetherflow.deliveries d
set leased_until = '-infinity', lease_token = 0, attempt = d.attempt - 1
from doubtful
where d.shard = $1 and d.ctid = doubtful.row_at and d.lease_token = $3
returning d.endpoint_id
