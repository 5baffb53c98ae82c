-- purge_keys: forget the idempotency keys of one shard whose events are no longer kept.
--   $1 shard smallint
--   $2 events_days integer
--   $3 batch_max bigint
-- returns keys
-- walks idempotency_keys_event
with old as materialized (
    select k.ctid as row_at from aetherflow.idempotency_keys k
    where k.shard = $1 and k.event_id < aetherflow.event_id_at(now() - make_interval(days => $2))
    order by k.event_id
    limit $3
), gone as (
    delete from aetherflow.idempotency_keys k
    using old
    where k.shard = $1 and k.ctid = old.row_at
    returning k.key
)
select count(*)::integer as keys from gone
