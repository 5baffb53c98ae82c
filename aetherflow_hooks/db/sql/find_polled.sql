-- find_polled: which of these endpoints that are polled have something to give.
--   $1 endpoint_ids text[]
--   $2 ahead_max bigint
-- returns endpoint_id
-- walks deliveries_due
select e.id as endpoint_id
from unnest($1::text[]) as k (id)
cross join lateral (
    select e.id, e.shard from aetherflow.endpoints e
    where e.id between k.id and k.id and e.polled and e.state = 'active'
    order by e.id
    limit 1
) e
cross join lateral (
    select ahead.due_at from (
        select d.due_at, d.leased_until from aetherflow.deliveries d
        where d.shard = e.shard and d.endpoint_id = e.id and d.due_at <= now()
        order by d.due_at
        limit $2
    ) ahead
    where ahead.leased_until < now()
    limit 1
) first
