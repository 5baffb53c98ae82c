-- replay_step: make the next deliveries of one replay, and write down how far it has come.
--   $1 looked_max bigint
--   $2 made_max integer
-- returns id, shard, endpoint_id, made, is_done, due_in_seconds
-- walks replays_running, endpoints_pkey, dead_pkey, events_pkey
--
-- One row: what was made, or null and when there may be more to make; null too: nothing runs. Looks
-- at the next dead deliveries of one endpoint, or at the next events, at most $1 of each shard;
-- those that fit and do not wait already become deliveries, at most $2 of them, and no more than
-- the rate lets in a tenth of a second. All of it or nothing, and only one engine at a time, so that
-- nothing is made twice by whoever goes on. What is still to be fanned out is left to that. A dead
-- delivery that is made again is not dead any more.
with replay as materialized (
    select r.*, r.ctid as row_at, least($2::integer, ceil(r.rate_per_second / 10)::integer) as made_max,
           aetherflow.event_id_at(r.since) as since_id, aetherflow.event_id_at(r.until) as until_id
    from aetherflow.replays r
    where r.state = 'running' and r.due_at <= now()
    order by r.due_at
    limit 1
    for update skip locked
), target as materialized (
    select e.id, e.shard, e.tenant, e.ordering, e.filter, e.channels,
           case when e.id = r.endpoint_at then greatest(r.event_at, r.since_id) else r.since_id end as begins_at
    from replay r
    cross join lateral (
        select e.id, e.shard, e.tenant, e.ordering, e.filter, e.channels from aetherflow.endpoints e
        where e.id >= coalesce(r.endpoint_id, r.endpoint_at) and e.id >= r.endpoint_at
          and (r.endpoint_id is null or e.id = r.endpoint_id) and (r.tenant is null or e.tenant = r.tenant)
          and e.state in ('active', 'paused')
        order by e.id
        limit 1
    ) e
), looked as materialized (
    select array(
        select d.event_id from aetherflow.dead d
        where d.shard = t.shard and d.endpoint_id = t.id and d.event_id > t.begins_at and d.event_id < r.until_id
        order by d.event_id
        limit $1
    ) as event_ids
    from replay r
    cross join target t
    where r.only_failed
    union all
    select array(
        select e.id from aetherflow.events e
        where e.shard = s.shard::smallint and e.id > t.begins_at and e.id < r.until_id
        order by e.id
        limit $1
    )
    from replay r
    cross join target t
    cross join generate_series(0, aetherflow.shard_count() - 1) as s (shard)
    where not r.only_failed
), seen as materialized (
    -- behind a shard's last one there may be more, so nothing behind the first of those is taken
    select min(l.event_ids[$1::integer]) as looked_to from looked l
), fitting as materialized (
    select e.*
    from replay r
    cross join target t
    cross join lateral (
        select e.id as event_id, e.shard as event_shard, e.expires_at,
               case when t.ordering is not null then '/' || coalesce(e.ordering_key, '') end as ordering_key
        from (
            select known.event_id
            from looked l
            cross join unnest(l.event_ids) known (event_id)
            cross join seen
            where seen.looked_to is null or known.event_id <= seen.looked_to
            order by known.event_id
        ) l
        cross join lateral (
            select e.* from aetherflow.events e
            where e.shard = aetherflow.shard_of(l.event_id) and e.id = l.event_id
            limit 1
        ) e
        where e.tenant = t.tenant and (e.expires_at is null or e.expires_at > now()) and coalesce(e.expunged_at, e.cancelled_at) is null
          and (r.pattern is null or r.pattern = any (array(select aetherflow.patterns_of(e.type))))
          and (r.only_failed or (
              exists (
                  select from aetherflow.patterns_of(e.type) as known (pattern)
                  cross join lateral (
                      select from aetherflow.subscriptions s
                      where (s.tenant, s.pattern, s.endpoint_id) >= (t.tenant, known.pattern, t.id)
                        and (s.tenant, s.pattern, s.endpoint_id) <= (t.tenant, known.pattern, t.id)
                      order by s.tenant, s.pattern, s.endpoint_id
                      limit 1
                  ) s
              )
              -- asked so, it is looked for in its shard alone; as `not exists` it might be joined to all
              and (
                  select o.event_id from aetherflow.outbox o
                  where o.shard = e.shard and not o.begun and o.event_id = e.id
                    and o.due_at between least(e.emitted_at, e.deliver_at) and greatest(e.emitted_at, e.deliver_at)
                  order by o.due_at
                  limit 1
              ) is null
              and (
                  select o.event_id from aetherflow.outbox o
                  where o.shard = e.shard and o.begun and o.event_id = e.id
                  order by o.due_at
                  limit 1
              ) is null
              and (t.channels is null or e.channels && t.channels or starts_with(e.type, 'aetherflow' || '.'))
              and (t.filter is null or aetherflow.let_through(e.data, array[t.filter]) = '1')
          ))
        order by l.event_id
        limit r.made_max
    ) e
), made as (
    insert into aetherflow.deliveries (shard, event_shard, endpoint_id, event_id, due_at, expires_at, ordering_key, trigger)
    select t.shard, f.event_shard, t.id, f.event_id, now(), f.expires_at, f.ordering_key, 'replay'
    from fitting f
    cross join target t
    on conflict do nothing
    returning event_id
), risen as (
    delete from aetherflow.dead d
    using (
        select d.row_at
        from target t
        cross join fitting f
        cross join lateral (
            select d.ctid as row_at from aetherflow.dead d
            where d.shard = t.shard and d.endpoint_id = t.id and d.event_id between f.event_id and f.event_id
            order by d.event_id
            limit 1
        ) d
    ) again
    where d.ctid = again.row_at
), came_to as (
    -- where as many fit as may be made, it goes on behind the last of them
    select case when count(f.event_id) = (select r.made_max from replay r) then max(f.event_id)
                else (select seen.looked_to from seen) end as event_id
    from fitting f
), waiting as (
    -- the one endpoint that it is for may be enabled again
    select coalesce((
        select e.state from aetherflow.endpoints e
        where e.id between r.endpoint_id and r.endpoint_id
        order by e.id
        limit 1
    ) = 'disabled', false) as is_so
    from replay r
), moved as (
    update aetherflow.replays r
    set state = case when t.id is null and not w.is_so then 'done' else r.state end,
        ended_at = case when t.id is null and not w.is_so then now() end,
        -- a blank sorts behind nothing and before every letter, so it leads to the next endpoint
        endpoint_at = case when c.event_id is null then coalesce(t.id || ' ', r.endpoint_at) else t.id end,
        event_at = case when w.is_so then r.event_at else coalesce(c.event_id, '') end,
        made = r.made + m.made,
        -- what a step comes late is made up for, but for no more than a moment
        due_at = case when w.is_so then now() + interval '5 seconds'
                      else greatest(r.due_at, now() - interval '0.2 seconds')
                           + make_interval(secs => coalesce(m.made / r.rate_per_second, 0)) end
    from replay
    cross join waiting w
    cross join came_to c
    cross join (select count(*)::integer as made from made) m
    left join target t on true
    where r.ctid = replay.row_at
    returning r.id, t.shard, t.id as endpoint_id, m.made, r.state = 'done' as is_done, r.due_at
)
select m.id, m.shard, m.endpoint_id, m.made, m.is_done,
       extract(epoch from coalesce(m.due_at, next.due_at) - now())::double precision as due_in_seconds
from (select min(due.due_at) as due_at from (
    select r.due_at from aetherflow.replays r where r.state = 'running' order by r.due_at limit 1
) due) next
left join moved m on true
