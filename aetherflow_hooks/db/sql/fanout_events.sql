-- fanout_events: turn due events into deliveries, all or nothing: outbox rows out, deliveries in.
--   $1 shard smallint
--   $2 batch_max bigint
--   $3 endpoints_max bigint
-- returns events, shard, endpoint_id
-- walks outbox_pkey, subscriptions_pkey, endpoints_pkey
--
-- One row per endpoint that has new work, and at least one, with the number of events taken.
-- An event for more than endpoints_max endpoints goes back into the outbox, to go on behind the
-- last. Two engines at one shard do each event once: the second waits for the first to delete it,
-- and then does not find it. Locking first, to skip what is locked, would cost a log record each.
with due as materialized (
    select o.ctid as place from aetherflow.outbox o
    where o.shard = $1 and o.due_at <= now()
    order by o.due_at, o.event_id
    limit $2
), picked as materialized (
    delete from aetherflow.outbox o
    using due
    where o.shard = $1 and o.ctid = due.place
    returning o.due_at, o.event_id, o.tenant, o.type, o.expires_at, o.after_endpoint
), reached as materialized (
    select p.*, wanting.shards, wanting.endpoint_ids
    from picked p
    cross join lateral (
        select to_timestamp(('x' || substr(p.event_id, 5, 13))::bit(52)::bigint / 1000000.0) as emitted_at
    ) event
    cross join lateral (
        select array_agg(wanted.shard) as shards, array_agg(wanted.endpoint_id) as endpoint_ids
        from (
            -- distinct, since an endpoint may choose a type by several patterns
            select distinct chosen.endpoint_id, chosen.shard
            from aetherflow.patterns_of(p.type) as known (pattern)
            cross join lateral (
                select s.endpoint_id, e.shard
                from aetherflow.subscriptions s
                join aetherflow.endpoints e on e.id = s.endpoint_id and e.state in ('active', 'paused')
                where s.tenant = p.tenant
                  and s.pattern = known.pattern
                  and s.created_at <= event.emitted_at
                  and s.endpoint_id > p.after_endpoint
                order by s.endpoint_id
                limit $3
            ) chosen
            order by chosen.endpoint_id
            limit $3
        ) wanted
    ) wanting
), unfinished as (
    insert into aetherflow.outbox (shard, due_at, event_id, tenant, type, expires_at, after_endpoint)
    select $1, r.due_at, r.event_id, r.tenant, r.type, r.expires_at, r.endpoint_ids[cardinality(r.endpoint_ids)]
    from reached r
    where cardinality(r.endpoint_ids) >= $3
), made as (
    insert into aetherflow.deliveries (shard, event_shard, endpoint_id, event_id, due_at, expires_at)
    select t.shard, $1, t.endpoint_id, r.event_id, r.due_at, r.expires_at
    from reached r
    cross join lateral unnest(r.shards, r.endpoint_ids) as t (shard, endpoint_id)
    order by t.shard, t.endpoint_id, r.event_id
    on conflict do nothing
    returning shard, endpoint_id
)
select taken.events, new.shard, new.endpoint_id
from (select count(*)::integer as events from picked) taken
left join (select distinct m.shard, m.endpoint_id from made m) new on true
