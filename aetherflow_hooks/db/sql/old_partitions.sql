-- old_partitions: partitions whose every row is past its retention, the oldest first.
--   $1 events_days integer
--   $2 attempts_days integer
-- returns parent, name, detaching, ends_at
select parent.relname::text as parent, child.relname::text as name, i.inhdetachpending as detaching, day.ends_at
from pg_inherits i
join pg_class parent on parent.oid = i.inhparent
join pg_class child on child.oid = i.inhrelid
cross join lateral (
    select to_timestamp(right(child.relname, 8) || ' 00+00', 'YYYYMMDD HH24TZH') + interval '1 day' as ends_at
) day
where parent.oid in ('aetherflow.events'::regclass, 'aetherflow.attempts'::regclass)
  and day.ends_at <= now() - make_interval(days => case parent.relname when 'events' then $1::integer else $2::integer end)
order by day.ends_at, child.relname
