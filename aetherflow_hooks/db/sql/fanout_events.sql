-- fanout_events: turn due events into deliveries, all or nothing: outbox rows out, deliveries in.
--   $1 shard smallint
--   $2 batch_max bigint
--   $3 endpoints_max bigint
--   $4 rooms jsonb
--   $5 token bigint
--   $6 with_events boolean
--   $7 since timestamptz
-- returns events, deliveries, is_begun, leased_unix_us, shard, endpoint_id, event_id, overdue_seconds, type, data, emitted_unix_seconds, traceparent
-- walks outbox_pkey, subscriptions_pkey, endpoints_pkey, events_pkey
--
-- One row with the numbers of events taken and of deliveries made, whether any is begun, and when
-- it was, since to repeat these with each row costs; then, for each event of what is on lease at once
-- or, with $6, of all, one without an endpoint, one per new delivery that is on lease, and one
-- without an event per endpoint that has other new work, whose type is polled where nobody is to be
-- told to lease it. On lease are, under the token, as many of an endpoint's as $4 says: a JSON object of
-- "endpoint/version": [room, lease seconds], which holds no endpoint that has older work, and none
-- with an order. Who wants a type is looked up once for all events of that type; data is looked at
-- only where one of them has a filter, and once for all of theirs. Endpoints with channels are
-- passed by where none of the events is on one; of the others, each event is compared with theirs.
-- Those that more than endpoints_max endpoints want go back into the outbox as begun, for
-- fanout_begun to go on behind the last; those with an order are all reached now, or a later event
-- might come before it. Data is read as by load_events. Nothing is due before $7: see find_events.
-- Two engines at one shard do each event once: the second waits for the first to delete it, and
-- then does not find it. Locking first, to skip what is locked, would cost a log record each. So no
-- delivery is made twice, and to ask for each whether it is there would cost half as much again;
-- should one be there, by whatever hand, the statement fails and is run `again`, which leaves it as
-- it is. Rows are compared whole, and endpoints looked up by `between`, since Postgres would walk
-- another index where it believes a table to be empty.
with due as materialized (
    select o.ctid as row_at from aetherflow.outbox o
    where o.shard = $1 and not o.begun and o.due_at between $7 and now()
    order by o.due_at, o.event_id
    limit $2
), picked as materialized (
    delete from aetherflow.outbox o
    using due
    where o.shard = $1 and o.ctid = due.row_at
    returning o.due_at, o.event_id, o.tenant, o.type, o.expires_at, o.ordering_key, o.channels
), alike as materialized (
    select p.tenant, p.type, aetherflow.event_moment(min(p.event_id)) as since,
           array_agg(p.event_id) as event_ids, array_agg(p.due_at) as due_ats,
           array_agg(p.expires_at) as expires_ats, array_agg(p.ordering_key) as ordering_keys,
           array_agg(p.channels) as channels, count(p.channels) as on_channels
    from picked p
    group by p.tenant, p.type
), reached as materialized (
    select a.*, wanting.shards, wanting.endpoint_ids, wanting.first_event_ids, wanting.rooms, wanting.lease_seconds,
           wanting.are_ordered, wanting.unordered, wanting.last_unordered,
           -- a bit for each event; null: all of them pass
           case when wanting.filtered > 0 then array(
               select coalesce(sifted.bits & f.heard, sifted.bits, f.heard)
               from unnest(wanting.filters, wanting.heard) with ordinality as f (filter, heard, place)
               cross join lateral (
                   select case when f.filter is not null then (
                       select string_agg(get_bit(e.bits, f.place::integer - 1)::text, '')::bit varying
                       from unnest(read.by_event) as e (bits)
                   ) end as bits
                   offset 0  -- they are worked out once
               ) sifted
           ) when wanting.choosing > 0 then wanting.heard end as passes
    from alike a
    cross join lateral (
        -- what is told to operators is on no channel: who has asked for it gets it
        select starts_with(a.type, 'aetherflow' || '.') as is_for_all, case when a.on_channels > 0 then (
            select jsonb_object_agg(c.channel, true)
            from (select distinct e.channels from unnest(a.channels) as e (channels) where e.channels is not null) e
            cross join lateral jsonb_array_elements_text(e.channels) as c (channel)
        ) end as some
        offset 0  -- they are gathered once
    ) channels
    cross join lateral (
        select array_agg(w.shard) as shards, array_agg(w.endpoint_id) as endpoint_ids,
               -- events from before an endpoint was there are not sent to it
               array_agg(case when w.created_at <= a.since then ''
                              else aetherflow.event_id_at(w.created_at) end) as first_event_ids,
               array_agg(coalesce((w.room -> 0)::integer, 0)) as rooms,
               array_agg((w.room -> 1)::double precision) as lease_seconds,
               array_agg(w.is_ordered) as are_ordered, count(*) filter (where not w.is_ordered) as unordered,
               max(w.endpoint_id) filter (where not w.is_ordered) as last_unordered,
               count(w.filter) as filtered, array_agg(w.filter) as filters,
               count(heard.bits) as choosing, array_agg(heard.bits) as heard
        from (
            -- an endpoint may choose a type by several patterns
            (select chosen.endpoint_id, chosen.shard, min(chosen.created_at) as created_at, false as is_ordered,
                    case when chosen.state = 'active'
                         then $4::jsonb -> (chosen.endpoint_id || '/' || chosen.version) end as room,
                    (array_agg(chosen.filter) filter (where chosen.filter is not null))[1] as filter,
                    min(chosen.channels) as channels
            from aetherflow.patterns_of(a.type) as known (pattern)
            cross join lateral (
                select s.endpoint_id, e.shard, e.state, e.version, e.filter, s.channels, s.created_at
                from aetherflow.subscriptions s
                cross join lateral (
                    select e.shard, e.state, e.version, e.filter from aetherflow.endpoints e
                    where e.id between s.endpoint_id and s.endpoint_id and e.state in ('active', 'paused')
                      and e.ordering is null
                    order by e.id
                    limit 1
                ) e
                where s.tenant = a.tenant and s.pattern = known.pattern
                  and (s.tenant, s.pattern, s.endpoint_id) > (a.tenant, known.pattern, '')
                  and (s.channels is null or channels.some ?| s.channels or channels.is_for_all)
                order by s.endpoint_id
                limit $3
            ) chosen
            group by chosen.endpoint_id, chosen.shard, chosen.state, chosen.version
            order by chosen.endpoint_id
            limit $3)
            union all
            select e.id, e.shard, min(s.created_at), true, null,
                   (array_agg(e.filter) filter (where e.filter is not null))[1], min(s.channels)
            from (
                select e.id, e.shard, e.state, e.filter from aetherflow.endpoints e
                where e.ordering is not null and (e.tenant, e.id) > (a.tenant, '') and (e.tenant, e.id) < (a.tenant, '~')
                order by e.tenant, e.id
                limit 1000000
            ) e
            cross join lateral aetherflow.patterns_of(a.type) as known (pattern)
            cross join lateral (
                select s.created_at, s.channels from aetherflow.subscriptions s
                where (s.tenant, s.pattern, s.endpoint_id) >= (a.tenant, known.pattern, e.id)
                  and (s.tenant, s.pattern, s.endpoint_id) <= (a.tenant, known.pattern, e.id)
                order by s.tenant, s.pattern, s.endpoint_id
                limit 1
            ) s
            where e.state in ('active', 'paused')
            group by e.id, e.shard
        ) w
        cross join lateral (
            select case when w.channels is not null and not channels.is_for_all then (
                select string_agg(case when e.channels ?| w.channels then '1' else '0' end, '')::bit varying
                from unnest(a.channels) as e (channels)
            ) end as bits
            offset 0  -- they are worked out once
        ) heard
    ) wanting
    cross join lateral (
        select case when wanting.filtered > 0 then array(
            select aetherflow.let_through(v.data, wanting.filters)
            from unnest(a.event_ids) as known (id)
            left join lateral (
                select v.data from aetherflow.events v where v.shard = $1 and v.id = known.id limit 1
            ) v on true
        ) end as by_event
        offset 0  -- it is read once
    ) read
), unfinished as (
    insert into aetherflow.outbox (shard, due_at, event_id, tenant, type, expires_at, ordering_key, channels,
                                   after_endpoint)
    select $1, now(), e.event_id, r.tenant, r.type, e.expires_at, e.ordering_key, e.channels,
           r.last_unordered
    from reached r
    cross join lateral unnest(r.event_ids, r.expires_ats, r.ordering_keys, r.channels)
        as e (event_id, expires_at, ordering_key, channels)
    where r.unordered >= $3
), made as (
    insert into aetherflow.deliveries (shard, event_shard, endpoint_id, event_id, due_at, expires_at, ordering_key,
                                       leased_until, lease_token, attempt)
    select n.shard, $1, n.endpoint_id, n.event_id, n.due_at, n.expires_at, n.ordering_key,
           case when n.leased then now() + make_interval(secs => n.lease_seconds) else '-infinity' end,
           case when n.leased then $5::bigint else 0 end, n.leased::integer
    from (
        select w.shard, w.endpoint_id, w.lease_seconds, e.event_id, e.due_at, e.expires_at,
               case when w.is_ordered then '/' || coalesce(e.ordering_key, '') end as ordering_key,
               (e.place <= w.room
                or w.passes is not null and bit_count(substring(w.passes for e.place::integer)) <= w.room)
               and (e.expires_at is null or e.expires_at > now()) as leased
        from reached r
        cross join lateral unnest(r.shards, r.endpoint_ids, r.first_event_ids, r.rooms, r.lease_seconds, r.are_ordered,
                                  r.passes)
            as w (shard, endpoint_id, first_event_id, room, lease_seconds, is_ordered, passes)
        cross join lateral unnest(r.event_ids, r.due_ats, r.expires_ats, r.ordering_keys) with ordinality
            as e (event_id, due_at, expires_at, ordering_key, place)
        where e.event_id >= w.first_event_id
          and (w.passes is null or get_bit(w.passes, e.place::integer - 1) = 1)
    ) n
    order by n.shard, n.endpoint_id, n.event_id
    --again: on conflict do nothing
    returning shard, endpoint_id, event_id, due_at, lease_token
)
select (select count(*)::integer from picked) as events, (select count(*)::integer from made) as deliveries,
       exists (select from reached r where r.unordered >= $3) as is_begun,
       (date_part('epoch', clock_timestamp()) * 1000000)::bigint as leased_unix_us,
       null::smallint as shard, null as endpoint_id, null as event_id, null::double precision as overdue_seconds,
       null as type, null as data, null::bigint as emitted_unix_seconds, null as traceparent
union all
select null, null, null, null, null, null, told.id, null, e.type, e.data, floor(extract(epoch from e.emitted_at))::bigint,
       e.traceparent
from (select distinct m.event_id as id from made m where m.lease_token <> 0 or $6) told
cross join lateral (
    select e.type, case when octet_length(e.data) <= 16777216 then e.data end as data, e.emitted_at, e.traceparent
    from aetherflow.events e
    where e.shard = $1 and e.id = told.id and e.expunged_at is null
    limit 1
) e
union all
select null, null, null, null, m.shard, m.endpoint_id, m.event_id,
       date_part('epoch', clock_timestamp()) - date_part('epoch', m.due_at), null, null, null, null
from made m
where m.lease_token <> 0
union all
(
    select null, null, null, null, m.shard, m.endpoint_id, null, null,
           case when (
               select p.polled from aetherflow.endpoints p
               where p.id between m.endpoint_id and m.endpoint_id and p.polled
               order by p.id
               limit 1
           ) then 'polled' end, null, null, null
    from (select distinct m.shard, m.endpoint_id from made m where m.lease_token = 0) m
)
