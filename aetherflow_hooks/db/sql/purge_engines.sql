-- purge_engines: forget engines that have been silent for long.
--   $1 silent_seconds double precision
-- returns engines
with gone as (
    delete from aetherflow.engines where seen_at < now() - make_interval(secs => $1) returning id
)
select count(*)::integer as engines from gone
