-- fanout_begun: carry on one event that very many endpoints want: deliveries for the next of them.
--   $1 shard smallint
--   $2 endpoints_max bigint
-- returns shard, endpoint_id
-- walks outbox_pkey, subscriptions_pkey, endpoints_pkey, events_pkey
--
-- What has begun takes turns by the moment of its last slice. A row per new delivery; none of them
-- is on lease: there are too many for that, and asking for room would cost as much as the row.
-- Otherwise as in fanout_events.
with due as materialized (
    select o.ctid as row_at from aetherflow.outbox o
    where o.shard = $1 and o.begun and o.due_at <= now()
    order by o.due_at, o.event_id
    limit 1
), picked as materialized (
    delete from aetherflow.outbox o
    using due
    where o.shard = $1 and o.ctid = due.row_at
    returning o.due_at, o.event_id, o.tenant, o.type, o.expires_at, o.ordering_key, o.channels, o.after_endpoint,
              aetherflow.event_moment(o.event_id) as emitted_at
), chosen as materialized (
    select s.endpoint_id, min(s.created_at) as created_at
    from picked p
    cross join lateral aetherflow.patterns_of(p.type) as known (pattern)
    cross join lateral (
        select s.endpoint_id, s.created_at from aetherflow.subscriptions s
        where s.tenant = p.tenant and s.pattern = known.pattern
          and (s.tenant, s.pattern, s.endpoint_id) > (p.tenant, known.pattern, p.after_endpoint)
          and (s.channels is null or p.channels ?| s.channels or starts_with(p.type, 'aetherflow' || '.'))
        order by s.endpoint_id
        limit $2
    ) s
    group by s.endpoint_id
    order by s.endpoint_id
    limit $2
), rest as (
    insert into aetherflow.outbox (shard, due_at, event_id, tenant, type, expires_at, ordering_key, channels,
                                   after_endpoint)
    select $1, now(), p.event_id, p.tenant, p.type, p.expires_at, p.ordering_key, p.channels, reached.last
    from picked p
    cross join (select max(c.endpoint_id) as last, count(*) as endpoints from chosen c) reached
    where reached.endpoints >= $2
), sifted as materialized (
    -- looked at where there is a filter, and then once
    select jsonb_object_agg(f.endpoint_id, true) as endpoints
    from (
        select array_agg(c.endpoint_id) as endpoint_ids, array_agg(e.filter) as filters
        from chosen c
        cross join lateral (
            select e.filter from aetherflow.endpoints e
            where e.id between c.endpoint_id and c.endpoint_id and e.filter is not null
            order by e.id
            limit 1
        ) e
    ) having_one
    cross join picked p
    left join lateral (
        select v.data from aetherflow.events v where v.shard = $1 and v.id = p.event_id limit 1
    ) v on true
    cross join lateral aetherflow.let_through(v.data, having_one.filters) as read (bits)
    cross join lateral unnest(having_one.endpoint_ids) with ordinality as f (endpoint_id, place)
    where get_bit(read.bits, f.place::integer - 1) = 1
)
insert into aetherflow.deliveries (shard, event_shard, endpoint_id, event_id, due_at, expires_at, ordering_key,
                                   leased_until, lease_token, attempt)
select e.shard, $1, c.endpoint_id, p.event_id, p.due_at, p.expires_at,
       null, '-infinity', 0, 0
from picked p
cross join chosen c
cross join lateral (
    select e.shard, e.filter from aetherflow.endpoints e
    where e.id between c.endpoint_id and c.endpoint_id and e.state in ('active', 'paused') and e.ordering is null
    order by e.id
    limit 1
) e
where c.created_at <= p.emitted_at
  and (e.filter is null or (select s.endpoints from sifted s) ? c.endpoint_id)
--again: on conflict do nothing
returning shard, endpoint_id
