-- count_waiting: how much waits for all endpoints or a tenant's, and how much is under way.
--   $1 tenant text
--   $2 counted_max bigint
-- returns waiting, in_flight, is_exact
-- walks deliveries_pkey
--
-- No more is counted than that many, along an index, since the table keeps the pages of what has left. What
-- is under way for all is what engines have said of themselves within 10 seconds, and for a tenant what is on
-- lease; the rest of what was counted waits.
select greatest(0, c.work - f.posts)::integer as waiting, f.posts::integer as in_flight, c.work < $2 as is_exact
from (
    select count(*) as work from (
        select d.shard from aetherflow.deliveries d
        order by d.shard, d.endpoint_id, d.event_id
        limit $2
    ) d
) c
cross join (
    select coalesce(sum(e.in_flight), 0) as posts from aetherflow.engines e
    where e.seen_at > now() - interval '10 seconds'
) f
where $1::text is null
union all
select (count(*) filter (where d.leased_until <= now()))::integer,
       (count(*) filter (where d.leased_until > now()))::integer, count(*) < $2
from (
    select d.leased_until from aetherflow.endpoints e
    cross join lateral (
        select d.leased_until from aetherflow.deliveries d
        where d.shard = e.shard and d.endpoint_id = e.id
        order by d.due_at
        limit $2
    ) d
    where e.tenant = $1 and e.state <> 'deleted'
    limit $2
) d
having $1::text is not null
