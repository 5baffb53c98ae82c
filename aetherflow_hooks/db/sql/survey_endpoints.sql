-- survey_endpoints: how many are in which state, and those that somebody should look at.
--   $1 tenant text
--   $2 behind_seconds double precision
--   $3 endpoints_max bigint
--   $4 looked_max integer
-- returns kind, state, endpoints, oldest_seconds, is_exact, id, tenant, url, why, since, reason
-- walks deliveries_due
--
-- Rows of the kind state count, and name the oldest work of each state; rows of the kind endpoint name some:
-- those that fail, those whose work has been due for long, and those that an engine has disabled, the last of
-- these first. Hops from endpoint to endpoint that has work, as find_deliveries does, in all shards at once
-- and not to more of them than that many; where there are more, it is not exact. A tenant's are looked for
-- one by one.
with recursive hops as (
    select s.shard::smallint as shard, first.endpoint_id, first.due_at, 1 as place
    from generate_series(0, aetherflow.shard_count() - 1) as s (shard)
    cross join lateral (
        select d.endpoint_id, d.due_at from aetherflow.deliveries d
        where d.shard = s.shard::smallint
        order by d.endpoint_id, d.due_at
        limit 1
    ) first
    where $1::text is null
    union all
    select h.shard, next.endpoint_id, next.due_at, h.place + 1
    from hops h
    cross join lateral (
        select d.endpoint_id, d.due_at from aetherflow.deliveries d
        where d.shard = h.shard and d.endpoint_id > h.endpoint_id
        order by d.endpoint_id, d.due_at
        limit 1
    ) next
    where h.place < $4 / aetherflow.shard_count()
), work as materialized (
    select h.endpoint_id, h.due_at from hops h
    union all
    (
        select e.id, first.due_at from aetherflow.endpoints e
        cross join lateral (
            select d.due_at from aetherflow.deliveries d
            where d.shard = e.shard and d.endpoint_id = e.id
            order by d.due_at
            limit 1
        ) first
        where e.tenant = $1
        limit $4
    )
), looked as (
    select coalesce((select max(h.place) from hops h) < $4 / aetherflow.shard_count(),
                    (select count(*) from work) < $4) as is_exact
), seen as materialized (
    select e.id, e.tenant, e.url, e.state, e.state_reason, e.failing_since, e.updated_at, w.due_at
    from aetherflow.endpoints e
    left join work w on w.endpoint_id = e.id and w.due_at < 'infinity'
    where e.state <> 'deleted' and ($1::text is null or e.tenant = $1)
), wrong as (
    select s.*,
           case when s.state = 'disabled' then s.updated_at
                when s.failing_since is not null then s.failing_since
                else s.due_at end as since,
           case when s.state = 'disabled' then 'disabled'
                when s.failing_since is not null then 'failing'
                else 'behind' end as why
    from seen s
    where (s.state = 'active' and (s.failing_since is not null or s.due_at < now() - make_interval(secs => $2)))
       or (s.state = 'disabled' and s.state_reason <> '')
)
select 'state' as kind, s.state, count(*)::integer as endpoints,
       case when count(s.due_at) > 0
           then greatest(0, extract(epoch from now() - min(s.due_at)))::double precision end as oldest_seconds,
       (select l.is_exact from looked l) as is_exact,
       null as id, null as tenant, null as url, null as why, null::timestamptz as since, null as reason
from seen s
group by s.state
union all
(
    select 'endpoint', w.state, null,
           case when w.due_at is not null
               then greatest(0, extract(epoch from now() - w.due_at))::double precision end,
           null, w.id, w.tenant, w.url, w.why, w.since, w.state_reason
    from wrong w
    order by w.state = 'disabled', case w.state when 'disabled' then now() - w.since else w.since - now() end
    limit $3
)
