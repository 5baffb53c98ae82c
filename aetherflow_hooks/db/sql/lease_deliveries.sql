-- lease_deliveries: take due deliveries for a limited time, of each endpoint as many as it has room for.
--   $1 shard smallint
--   $2 endpoint_ids text[]
--   $3 rooms integer[]
--   $4 sinces_seconds_ago double precision[]
--   $5 timeout_seconds double precision
--   $6 margin_seconds double precision
--   $7 token bigint
-- returns endpoint_id, event_id, event_shard, attempt, leased_unix_us, expired, overdue_seconds, version
-- walks deliveries_due
--
-- The endpoint's state is read here, so that nothing is sent to one that has just been paused,
-- disabled or deleted, or that is polled; its version tells whether our copy of it is still right. A lease outlives
-- the endpoint's own timeout, or else $5, by a margin. Nothing is due longer ago than $4 says, so
-- that the way does not lead past all that has left since, where an old snapshot keeps vacuum from
-- its work. What is due is locked, so its place (ctid) holds and is the cheapest way back to it. The
-- order, the limits and `between` leave Postgres no other way than the index, whatever it believes
-- of the tables.
with wanted as materialized (
    select w.endpoint_id, w.room, now() - make_interval(secs => w.seconds_ago) as since, e.version,
           make_interval(secs => coalesce(e.timeout_seconds, $5::double precision) + $6::double precision) as lease
    from unnest($2::text[], $3::integer[], $4::double precision[]) as w (endpoint_id, room, seconds_ago)
    cross join lateral (
        select e.version, e.timeout_seconds from aetherflow.endpoints e
        where e.id between w.endpoint_id and w.endpoint_id and e.state = 'active' and e.ordering is null and not e.polled
        order by e.id
        limit 1
    ) e
), due as materialized (
    select w.lease, w.version, d.row_at
    from wanted w
    cross join lateral (
        select d.ctid as row_at from aetherflow.deliveries d
        where d.shard = $1 and d.endpoint_id = w.endpoint_id and d.due_at between w.since and now()
          and d.leased_until < now()
        order by d.due_at
        limit w.room
        for update skip locked
    ) d
    limit (select sum(w.room) from unnest($3::integer[]) as w (room))
)
update aetherflow.deliveries d
set leased_until = now() + due.lease, lease_token = $7, attempt = d.attempt + 1
from due
where d.shard = $1 and d.ctid = due.row_at
returning d.endpoint_id, d.event_id, d.event_shard, d.attempt,
          (date_part('epoch', clock_timestamp()) * 1000000)::bigint as leased_unix_us,
          coalesce(d.expires_at <= now(), false) as expired,
          date_part('epoch', clock_timestamp()) - date_part('epoch', d.due_at) as overdue_seconds,
          due.version
