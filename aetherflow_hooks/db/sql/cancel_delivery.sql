-- cancel_delivery: give up a delivery that is not on lease.
--   $1 endpoint_id text
--   $2 event_id text
-- returns event_id
with cancelled as (
    delete from aetherflow.deliveries d
    where d.shard = aetherflow.shard_of($1) and d.endpoint_id = $1 and d.event_id = $2 and d.leased_until < now()
    returning d.*
)
insert into aetherflow.dead (shard, endpoint_id, event_id, event_shard, attempts, reason)
select c.shard, c.endpoint_id, c.event_id, c.event_shard, c.attempt, 'cancelled' from cancelled c
on conflict (shard, endpoint_id, event_id) do update
set attempts = excluded.attempts, reason = excluded.reason, died_at = excluded.died_at
returning event_id
