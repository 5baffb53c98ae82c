-- purge_dead: forget the dead deliveries of one shard whose events are no longer kept.
--   $1 shard smallint
--   $2 events_days integer
--   $3 batch_max bigint
-- returns deliveries
-- walks dead_died
with old as materialized (
    select d.ctid as row_at from aetherflow.dead d
    where d.shard = $1 and d.died_at < now() - make_interval(days => $2)
    order by d.died_at
    limit $3
), gone as (
    delete from aetherflow.dead d
    using old
    where d.shard = $1 and d.ctid = old.row_at and d.died_at < now() - make_interval(days => $2)
    returning d.event_id
)
select count(*)::integer as deliveries from gone
