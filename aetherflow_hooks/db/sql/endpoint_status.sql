-- endpoint_status: a page of endpoints in the order of their making, and what waits for each.
--   $1 tenant text
--   $2 endpoint_id text
--   $3 after_endpoint text
--   $4 rows_max bigint
--   $5 counted_max bigint
-- returns id, tenant, url, state, waiting, in_flight, is_exact, oldest_seconds
-- walks deliveries_due
--
-- Of each no more is counted than that many, those that have been due for longest, among which those are
-- that an engine is at.
select e.id, e.tenant, e.url, e.state, work.waiting, work.in_flight, work.is_exact, oldest.oldest_seconds
from (
    select e.id, e.shard, e.tenant, e.url, e.state, e.created_at from aetherflow.endpoints e
    where e.state <> 'deleted' and ($1::text is null or e.tenant = $1) and ($2::text is null or e.id = $2)
      and ($3::text is null
           or (e.created_at, e.id) > (select a.created_at, a.id from aetherflow.endpoints a
                                        where a.id = $3 and ($1::text is null or a.tenant = $1)))
    order by e.created_at, e.id
    limit $4
) e
cross join lateral (
    select (count(*) filter (where d.leased_until <= now()))::integer as waiting,
           (count(*) filter (where d.leased_until > now()))::integer as in_flight,
           count(*) < $5 as is_exact
    from (
        select d.leased_until from aetherflow.deliveries d
        where d.shard = e.shard and d.endpoint_id = e.id
        order by d.due_at
        limit $5
    ) d
) work
left join lateral (
    select greatest(0, extract(epoch from now() - d.due_at))::double precision as oldest_seconds
    from aetherflow.deliveries d
    where d.shard = e.shard and d.endpoint_id = e.id and d.due_at < 'infinity'
    order by d.due_at
    limit 1
) oldest on true
order by e.created_at, e.id
