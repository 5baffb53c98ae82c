-- cancel_waiting: give up what waits in one shard, so many rows of events and of deliveries.
--   $1 shard smallint
--   $2 batch_max bigint
-- returns events, deliveries
with gone as (
    delete from aetherflow.outbox o
    where o.shard = $1 and o.ctid = any (array(select o.ctid from aetherflow.outbox o where o.shard = $1 limit $2))
    returning o.event_id
), cancelled as (
    delete from aetherflow.deliveries d
    where d.shard = $1 and d.ctid = any (array(
        select d.ctid from aetherflow.deliveries d where d.shard = $1 and d.leased_until < now() limit $2))
    returning d.*
), kept as (
    insert into aetherflow.dead (shard, endpoint_id, event_id, event_shard, attempts, reason)
    select c.shard, c.endpoint_id, c.event_id, c.event_shard, c.attempt, 'cancelled' from cancelled c
    on conflict (shard, endpoint_id, event_id) do update
    set attempts = excluded.attempts, reason = excluded.reason, died_at = excluded.died_at
)
select (select count(*) from gone) as events, (select count(*) from cancelled) as deliveries
