-- fanout_events: turn due events into deliveries, all or nothing: outbox rows out, deliveries in.
--   $1 shard smallint
--   $2 batch_max bigint
--   $3 endpoints_max bigint
-- returns events, shard, endpoint_id
-- walks outbox_pkey
--
-- One row per endpoint that has new work, and at least one, with the number of events taken.
-- An event for more than endpoints_max endpoints stays in the outbox and goes on behind the last.
with picked as materialized (
    select o.due_at, o.event_id, o.tenant, o.expires_at, o.after_endpoint,
           aetherflow.patterns_of(o.type) as patterns,
           to_timestamp(('x' || substr(o.event_id, 5, 13))::bit(52)::bigint / 1000000.0) as emitted_at
    from aetherflow.outbox o
    where o.shard = $1 and o.due_at <= now()
    order by o.due_at, o.event_id
    limit $2
    for update skip locked
), target as materialized (
    select p.due_at, p.event_id, p.expires_at, wanting.shard, wanting.endpoint_id
    from picked p
    cross join lateral (
        -- distinct, since an endpoint may choose a type by several patterns
        select distinct s.endpoint_id, e.shard
        from aetherflow.subscriptions s
        join aetherflow.endpoints e on e.id = s.endpoint_id and e.state in ('active', 'paused')
        where s.tenant = p.tenant
          and s.pattern = any (p.patterns)
          and s.created_at <= p.emitted_at
          and s.endpoint_id > p.after_endpoint
        order by s.endpoint_id
        limit $3
    ) wanting
), made as (
    insert into aetherflow.deliveries (shard, event_shard, endpoint_id, event_id, due_at, expires_at)
    select t.shard, $1, t.endpoint_id, t.event_id, t.due_at, t.expires_at
    from target t
    order by t.shard, t.endpoint_id, t.event_id
    on conflict do nothing
    returning shard, endpoint_id
), reached as materialized (
    select p.due_at, p.event_id, count(t.endpoint_id) as endpoints, max(t.endpoint_id) as last_endpoint
    from picked p
    left join target t on t.event_id = p.event_id
    group by p.due_at, p.event_id
), unfinished as (
    update aetherflow.outbox o set after_endpoint = r.last_endpoint
    from reached r
    where r.endpoints >= $3 and o.shard = $1 and o.due_at = r.due_at and o.event_id = r.event_id
), finished as (
    delete from aetherflow.outbox o
    using reached r
    where r.endpoints < $3 and o.shard = $1 and o.due_at = r.due_at and o.event_id = r.event_id
)
select taken.events, new.shard, new.endpoint_id
from (select count(*)::integer as events from picked) taken
left join (select distinct m.shard, m.endpoint_id from made m) new on true
