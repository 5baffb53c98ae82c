-- examine_holders: what keeps vacuum from its work, or the log of changes from being removed.
--   $1 older_than_seconds double precision
-- returns kind, name, detail, age_seconds
--
-- Of others' transactions only a member of pg_read_all_stats sees when they began and whose they are.
select 'transaction' as kind, a.pid::text as name,
       concat_ws(', ', nullif(a.application_name, ''), a.usename, a.state) as detail,
       date_part('epoch', now() - a.xact_start) as age_seconds
from pg_stat_activity a
where a.pid <> pg_backend_pid() and (a.backend_xmin is not null or a.backend_xid is not null)
  and a.backend_type <> 'autovacuum worker' and (a.datname = current_database() or a.datname is null)
  and a.xact_start < now() - make_interval(secs => $1)
union all
select 'prepared', x.gid, x.owner::text, date_part('epoch', now() - x.prepared)
from pg_prepared_xacts x
where x.database = current_database() and x.prepared < now() - make_interval(secs => $1)
union all
select 'slot', s.slot_name::text, s.slot_type, null from pg_replication_slots s
where not s.active and (s.database = current_database() or s.database is null)
  and (s.xmin is not null or s.catalog_xmin is not null or s.restart_lsn is not null)
order by 4 desc nulls last, 2
