-- what_waits: what would be sent if engines worked, and the newest event that is here.
--   $1 most bigint
-- returns events, deliveries, last_event_at
--
-- Each is counted up to $1: there may be very many.
select (select count(*) from (select from aetherflow.outbox limit $1) o) as events,
       (select count(*) from (select from aetherflow.deliveries limit $1) d) as deliveries,
       (
           select max(aetherflow.event_moment(newest.id))
           from aetherflow.shards s
           cross join lateral (
               select e.id from aetherflow.events e where e.shard = s.shard order by e.id desc limit 1
           ) newest
       ) as last_event_at
