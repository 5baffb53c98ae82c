-- cancel_waiting: give up all that waits, of events and of deliveries.
-- returns events, deliveries
with gone as (
    delete from aetherflow.outbox returning event_id
), cancelled as (
    delete from aetherflow.deliveries where leased_until < now() returning *
), kept as (
    insert into aetherflow.dead (shard, endpoint_id, event_id, event_shard, attempts, reason)
    select c.shard, c.endpoint_id, c.event_id, c.event_shard, c.attempt, 'cancelled' from cancelled c
    on conflict (shard, endpoint_id, event_id) do update
    set attempts = excluded.attempts, reason = excluded.reason, died_at = excluded.died_at
)
select (select count(*) from gone) as events, (select count(*) from cancelled) as deliveries
