-- purge_repeats: forget answers that are older than a day.
--   $1 seconds double precision
-- returns key
delete from aetherflow.repeats r where r.made_at < now() - make_interval(secs => $1)
returning r.key
