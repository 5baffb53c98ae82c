-- old_partitions: tables of days whose every row is past its retention, the oldest first.
--   $1 events_days integer
--   $2 attempts_days integer
-- returns parent, name, attached, detaching, ends_at
--
-- A table that is no partition any more is one whose dropping was cut short.
select day.parent, day.name, c.relispartition as attached, coalesce(i.inhdetachpending, false) as detaching,
       day.ends_at
from pg_class c
left join pg_inherits i on i.inhrelid = c.oid
cross join lateral (
    select split_part(c.relname, '_', 1) as parent, c.relname::text as name,
           to_timestamp(right(c.relname, 8) || ' 00+00', 'YYYYMMDD HH24TZH') + interval '1 day' as ends_at
) day
where c.relkind = 'r' and c.relname ~ '^(events|attempts)_[0-9]{8}$'
  and c.relnamespace = (select p.relnamespace from pg_class p where p.oid = 'aetherflow.events'::regclass)
  and day.ends_at <= now() - make_interval(days => case day.parent when 'events' then $1::integer else $2::integer end)
order by day.ends_at, day.name
