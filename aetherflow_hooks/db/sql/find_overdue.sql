-- find_overdue: what has been due for long, and nobody is at it.
--   $1 shards smallint[]
--   $2 overdue_seconds double precision
--   $3 endpoints_max integer
-- returns endpoint_id, overdue_seconds
--
-- A row without an endpoint for events that wait for fan-out, and one for each active endpoint whose
-- first delivery waits; but of those with an order, where what waits may have to. Hops from endpoint
-- to endpoint as find_deliveries does, to at most that many in a shard.
with recursive hops as (
    select s.shard, first.endpoint_id, 1 as place
    from unnest($1::smallint[]) as s (shard)
    cross join lateral (
        select d.endpoint_id from aetherflow.deliveries d
        where d.shard = s.shard
        order by d.endpoint_id
        limit 1
    ) first
    union all
    select h.shard, next.endpoint_id, h.place + 1
    from hops h
    cross join lateral (
        select d.endpoint_id from aetherflow.deliveries d
        where d.shard = h.shard and d.endpoint_id > h.endpoint_id
        order by d.endpoint_id
        limit 1
    ) next
    where h.place < $3
)
select null as endpoint_id, max(date_part('epoch', now() - first.due_at)) as overdue_seconds
from unnest($1::smallint[]) as s (shard)
cross join lateral (
    select o.due_at from aetherflow.outbox o
    where o.shard = s.shard and not o.begun
    order by o.due_at
    limit 1
) first
having max(date_part('epoch', now() - first.due_at)) > $2
union all
select h.endpoint_id, date_part('epoch', now() - first.due_at)
from hops h
join aetherflow.endpoints e on e.id = h.endpoint_id and e.state = 'active' and not e.polled and e.ordering is null
cross join lateral (
    select d.due_at from aetherflow.deliveries d
    where d.shard = h.shard and d.endpoint_id = h.endpoint_id and d.leased_until < now()
    order by d.due_at
    limit 1
) first
where first.due_at < now() - make_interval(secs => $2)
