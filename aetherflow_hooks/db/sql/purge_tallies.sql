-- purge_tallies: forget the hours of one shard whose attempts are no longer kept.
--   $1 shard smallint
--   $2 attempts_days integer
--   $3 batch_max bigint
-- returns hours
-- walks tallies_age
with old as materialized (
    select t.ctid as row_at from aetherflow.tallies t
    where t.shard = $1 and t.span = 3600 and t.starts_at < now() - make_interval(days => $2)
    order by t.starts_at
    limit $3
), gone as (
    delete from aetherflow.tallies t
    using old
    where t.shard = $1 and t.ctid = old.row_at
    returning t.subject
)
select count(*)::integer as hours from gone
