-- count_replay: how many deliveries a replay would make now, and at how many endpoints.
--   $1 tenant text
--   $2 endpoint_id text
--   $3 pattern text
--   $4 since timestamptz
--   $5 until timestamptz
--   $6 only_failed boolean
--   $7 looked_max bigint
-- returns deliveries, endpoints, is_whole
--
-- The rules are those of replay_step. At most $7 dead deliveries or events are looked at; where
-- there are more, there may be more to make.
with target as materialized (
    select e.id, e.shard, e.tenant, e.filter, e.channels from aetherflow.endpoints e
    where e.state in ('active', 'paused') and ($2::text is null or e.id = $2) and ($1::text is null or e.tenant = $1)
), looked as materialized (
    select t.id as endpoint_id, t.shard, t.tenant, d.event_id
    from target t
    join aetherflow.dead d on d.shard = t.shard and d.endpoint_id = t.id
    where $6 and d.event_id > aetherflow.event_id_at($4) and d.event_id < aetherflow.event_id_at(least($5, now()))
    union all
    select t.id, t.shard, t.tenant, e.id
    from target t
    join aetherflow.events e on e.tenant = t.tenant
    where not $6 and e.id > aetherflow.event_id_at($4) and e.id < aetherflow.event_id_at(least($5, now()))
    limit $7
), wanted as materialized (
    -- by type, since to look for the patterns of each event would take as long as all the rest
    select t.id as endpoint_id, known.type, case when not $6 then t.filter end as filter,
           case when not $6 and not starts_with(known.type, 'aetherflow' || '.') then t.channels end as channels
    from target t
    cross join (
        select distinct e.type from looked l
        join aetherflow.events e on e.shard = aetherflow.shard_of(l.event_id) and e.id = l.event_id
    ) known
    where ($3::text is null or $3 in (select aetherflow.patterns_of(known.type)))
      and ($6 or exists (
          select from aetherflow.subscriptions s
          where s.endpoint_id = t.id and s.pattern in (select aetherflow.patterns_of(known.type))
      ))
)
select count(*) as deliveries, count(distinct l.endpoint_id) as endpoints,
       (select count(*) from looked) < $7 as is_whole
from looked l
join aetherflow.events e on e.shard = aetherflow.shard_of(l.event_id) and e.id = l.event_id and e.tenant = l.tenant
join wanted w on w.endpoint_id = l.endpoint_id and w.type = e.type
where (e.expires_at is null or e.expires_at > now()) and coalesce(e.expunged_at, e.cancelled_at) is null
  and not exists (
      select from aetherflow.deliveries d
      where d.shard = l.shard and d.endpoint_id = l.endpoint_id and d.event_id = l.event_id
  )
  and ($6 or not exists (select from aetherflow.outbox o where o.shard = e.shard and o.event_id = e.id))
  and (w.channels is null or e.channels && w.channels)
  and (w.filter is null or aetherflow.let_through(e.data, array[w.filter]) = '1')
