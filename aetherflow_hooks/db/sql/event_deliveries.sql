-- event_deliveries: the deliveries of one event, whatever has become of them, in the endpoints' order.
--   $1 event_id text
--   $2 endpoint_id text
--   $3 after text
--   $4 looked_max bigint
-- returns endpoint_id, event_id, state, attempts, due_at, reason, last_status, last_error, last_at, looked_to
--
-- Null as $2 stands for every endpoint. What waits is looked for at the endpoints of the event's
-- tenant, since no index of what waits leads with the event; at $4 of them, those behind $3. There
-- is one row more, whose looked_to tells behind which endpoint to go on; null: there is nothing more.
with candidates as materialized (
    select e.id, e.shard from aetherflow.endpoints e where e.id = $2
    union all
    (
        select e.id, e.shard from aetherflow.endpoints e
        where $2::text is null and e.id > $3
          and e.tenant = (
              select v.tenant from aetherflow.events v where v.shard = aetherflow.shard_of($1) and v.id = $1
          )
        order by e.id
        limit $4
    )
), seen as (
    select case when count(*) = $4 then max(c.id) end as looked_to from candidates c
), tried as materialized (
    select distinct on (a.endpoint_id) a.endpoint_id, a.attempt, a.status, a.error, a.started_at,
           bool_or(a.verdict = 'delivered') over (partition by a.endpoint_id) as was_delivered
    from aetherflow.attempts a
    cross join seen
    where a.event_id = $1 and a.started_at >= aetherflow.event_moment($1) - interval '1 day'
      and ($2::text is null or a.endpoint_id = $2)
      and a.endpoint_id > $3 and (seen.looked_to is null or a.endpoint_id <= seen.looked_to)
    order by a.endpoint_id, a.started_at desc
), unfinished as (
    select d.endpoint_id,
           case when d.leased_until > now() then 'leased' when d.due_at = 'infinity' then 'halted' else 'pending' end
           as state,
           d.attempt as attempts, nullif(d.due_at, 'infinity') as due_at, null::text as reason
    from candidates c
    cross join lateral (
        select d.* from aetherflow.deliveries d
        where d.shard = c.shard and d.endpoint_id = c.id and d.event_id between $1 and $1
        order by d.event_id
        limit 1
    ) d
    union all
    select d.endpoint_id, 'dead', d.attempts, null, d.reason
    from candidates c
    join aetherflow.dead d on d.shard = c.shard and d.endpoint_id = c.id and d.event_id = $1
)
select coalesce(u.endpoint_id, t.endpoint_id) as endpoint_id, $1 as event_id, coalesce(u.state, 'delivered') as state,
       coalesce(u.attempts, t.attempt) as attempts, u.due_at, u.reason, t.status as last_status,
       t.error as last_error, t.started_at as last_at, null::text as looked_to
from unfinished u
full join tried t on t.endpoint_id = u.endpoint_id
where u.endpoint_id is not null or t.was_delivered
union all
select null, null, null, null, null, null, null, null, null, seen.looked_to from seen
order by endpoint_id nulls last
