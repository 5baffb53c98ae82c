-- find_deliveries: which endpoints have work that nobody is at, and when it is due, from now.
--   $1 shard smallint
--   $2 after_endpoint text
--   $3 endpoints_max integer
-- returns endpoint_id, version, due_in_seconds
-- walks deliveries_due
--
-- A page of the endpoints that have anything waiting, in their order; of one that is not active or is polled, or
-- whose work is all on lease or halted, the id alone. Hops from endpoint to endpoint, so that the cost is that
-- of the endpoints and not of the rows.
with recursive waiting as (
    (
        select d.endpoint_id, 1 as place from aetherflow.deliveries d
        where d.shard = $1 and d.endpoint_id > $2
        order by d.endpoint_id
        limit 1
    )
    union all
    select (
        select d.endpoint_id from aetherflow.deliveries d
        where d.shard = $1 and d.endpoint_id > w.endpoint_id
        order by d.endpoint_id
        limit 1
    ), w.place + 1
    from waiting w
    where w.endpoint_id is not null and w.place < $3
)
select w.endpoint_id, due.version, due.due_in_seconds
from waiting w
left join lateral (
    select e.version, extract(epoch from first.due_at - now())::double precision as due_in_seconds
    from (
        select e.version from aetherflow.endpoints e
        where e.id between w.endpoint_id and w.endpoint_id and e.state = 'active' and not e.polled
        order by e.id
        limit 1
    ) e
    cross join lateral (
        select d.due_at from aetherflow.deliveries d
        where d.shard = $1 and d.endpoint_id = w.endpoint_id
          and d.leased_until < now() and d.due_at < 'infinity'
        order by d.due_at
        limit 1
    ) first
) due on true
where w.endpoint_id is not null
