-- examine_triggers: triggers of ours that somebody has switched off.
-- returns name, table_name
--
-- Ours are those that call a function of ours, on whichever table.
select t.tgname::text as name, t.tgrelid::regclass::text as table_name
from pg_trigger t
join pg_proc f on f.oid = t.tgfoid
where not t.tgisinternal and t.tgenabled in ('D', 'R')
  and f.pronamespace = (select p.relnamespace from pg_class p where p.oid = 'aetherflow.events'::regclass)
order by 2, 1
