-- fanout_events: turn due events into deliveries, all or nothing: outbox rows out, deliveries in.
--   $1 shard smallint
--   $2 batch_max bigint
--   $3 endpoints_max bigint
-- returns events, shard, endpoint_id
-- walks outbox_pkey, subscriptions_pkey, endpoints_pkey
--
-- One row per endpoint that has new work, and at least one, with the number of events taken.
-- Who wants a type is looked up once for all events of that type. Those that more than
-- endpoints_max endpoints want go back into the outbox, to go on behind the last. Two engines at one
-- shard do each event once: the second waits for the first to delete it, and then does not find
-- it. Locking first, to skip what is locked, would cost a log record each.
with due as materialized (
    select o.ctid as row_at from aetherflow.outbox o
    where o.shard = $1 and o.due_at <= now()
    order by o.due_at, o.event_id
    limit $2
), picked as materialized (
    delete from aetherflow.outbox o
    using due
    where o.shard = $1 and o.ctid = due.row_at
    returning o.due_at, o.event_id, o.tenant, o.type, o.expires_at, o.after_endpoint
), alike as materialized (
    select p.tenant, p.type, p.after_endpoint, array_agg(p.event_id) as event_ids, array_agg(p.due_at) as due_ats,
           array_agg(p.expires_at) as expires_ats
    from picked p
    group by p.tenant, p.type, p.after_endpoint
), reached as materialized (
    select a.*, wanting.shards, wanting.endpoint_ids, wanting.first_event_ids
    from alike a
    cross join lateral (
        select array_agg(w.shard) as shards, array_agg(w.endpoint_id) as endpoint_ids,
               -- earlier ones are not sent by themselves
               array_agg(aetherflow.event_id_at(w.created_at)) as first_event_ids
        from (
            -- an endpoint may choose a type by several patterns
            select chosen.endpoint_id, chosen.shard, min(chosen.created_at) as created_at
            from aetherflow.patterns_of(a.type) as known (pattern)
            cross join lateral (
                select s.endpoint_id, e.shard, s.created_at
                from aetherflow.subscriptions s
                join aetherflow.endpoints e on e.id = s.endpoint_id and e.state in ('active', 'paused')
                where s.tenant = a.tenant and s.pattern = known.pattern and s.endpoint_id > a.after_endpoint
                order by s.endpoint_id
                limit $3
            ) chosen
            group by chosen.endpoint_id, chosen.shard
            order by chosen.endpoint_id
            limit $3
        ) w
    ) wanting
), unfinished as (
    insert into aetherflow.outbox (shard, due_at, event_id, tenant, type, expires_at, after_endpoint)
    select $1, e.due_at, e.event_id, r.tenant, r.type, e.expires_at, r.endpoint_ids[cardinality(r.endpoint_ids)]
    from reached r
    cross join lateral unnest(r.event_ids, r.due_ats, r.expires_ats) as e (event_id, due_at, expires_at)
    where cardinality(r.endpoint_ids) >= $3
), made as (
    insert into aetherflow.deliveries (shard, event_shard, endpoint_id, event_id, due_at, expires_at)
    select w.shard, $1, w.endpoint_id, e.event_id, e.due_at, e.expires_at
    from reached r
    cross join lateral unnest(r.shards, r.endpoint_ids, r.first_event_ids) as w (shard, endpoint_id, first_event_id)
    cross join lateral unnest(r.event_ids, r.due_ats, r.expires_ats) as e (event_id, due_at, expires_at)
    where e.event_id >= w.first_event_id
    order by w.shard, w.endpoint_id, e.event_id
    on conflict do nothing
    returning shard, endpoint_id
)
select taken.events, new.shard, new.endpoint_id
from (select count(*)::integer as events from picked) taken
left join (select distinct m.shard, m.endpoint_id from made m) new on true
