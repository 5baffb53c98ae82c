-- lease_ordered: take the first due delivery of each key of one endpoint, which has an order.
--   $1 shard smallint
--   $2 endpoint_id text
--   $3 after_key text
--   $4 keys_max integer
--   $5 room bigint
--   $6 timeout_seconds double precision
--   $7 margin_seconds double precision
--   $8 token bigint
-- returns endpoint_id, event_id, event_shard, attempt, leased_unix_us, expired, overdue_seconds, version, ordering_key, keys
-- walks deliveries_order
--
-- Looks at the keys behind $3, at most $4 of them; a key whose first delivery is on lease or not due
-- gives nothing, whatever comes behind that. Nobody else is at the endpoint, but for an engine that
-- has lost its shard; what that is about to change is waited for. Otherwise as in lease_deliveries. There is one row more,
-- without a delivery, which tells the last key that was looked at, and how many were.
with recursive firsts as (
    (
        select d.ctid as row_at, d.ordering_key, d.due_at, d.leased_until, 1 as place
        from aetherflow.deliveries d
        where d.shard = $1 and d.endpoint_id = $2 and d.ordering_key > $3
        order by d.ordering_key, d.event_id
        limit 1
    )
    union all
    select next.row_at, next.ordering_key, next.due_at, next.leased_until, f.place + 1
    from firsts f
    cross join lateral (
        select d.ctid as row_at, d.ordering_key, d.due_at, d.leased_until
        from aetherflow.deliveries d
        where d.shard = $1 and d.endpoint_id = $2 and d.ordering_key > f.ordering_key
        order by d.ordering_key, d.event_id
        limit 1
    ) next
    where f.place < $4
), wanted as materialized (
    select e.version, make_interval(secs => coalesce(e.timeout_seconds, $6::double precision) + $7::double precision) as lease
    from aetherflow.endpoints e
    where e.id between $2 and $2 and e.state = 'active'
    order by e.id
    limit 1
), due as materialized (
    select f.row_at from firsts f
    where f.due_at <= now() and f.leased_until < now()
      -- one that was retried by hand, or committed late, may come before one that is on its way
      and not exists (
          select from (
              select d.leased_until from aetherflow.deliveries d
              where d.shard = $1 and d.endpoint_id = $2 and d.ordering_key = f.ordering_key
              order by d.event_id
              limit 10
          ) next
          where next.leased_until > now()
      )
    limit $5
), taken as (
    update aetherflow.deliveries d
    set leased_until = now() + w.lease, lease_token = $8, attempt = d.attempt + 1
    from due
    cross join wanted w
    where d.shard = $1 and d.ctid = due.row_at and d.leased_until < now()
    returning d.endpoint_id, d.event_id, d.event_shard, d.attempt, coalesce(d.expires_at <= now(), false) as expired,
              date_part('epoch', clock_timestamp()) - date_part('epoch', d.due_at) as overdue_seconds, w.version, d.ordering_key
)
select t.endpoint_id, t.event_id, t.event_shard, t.attempt,
       (date_part('epoch', clock_timestamp()) * 1000000)::bigint as leased_unix_us,
       t.expired, t.overdue_seconds, t.version, t.ordering_key, null::integer as keys
from taken t
union all
select null, null, null, null, null, null, null, null, max(f.ordering_key), count(*)::integer from firsts f
