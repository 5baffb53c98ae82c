-- examine_tables: our tables, with what is not as `migrate` has made them.
-- returns name, is_unlogged, is_vacuumed, rows, dead_rows
--
-- Rows as Postgres estimates them. Partitions are tables of their own here.
select c.relname::text as name, c.relpersistence <> 'p' as is_unlogged,
       not exists (
           select from unnest(c.reloptions) as o (option)
           where o.option ~* '^autovacuum_enabled=(f|off|no|0)'
       ) as is_vacuumed,
       pg_stat_get_live_tuples(c.oid) as rows, pg_stat_get_dead_tuples(c.oid) as dead_rows
from pg_class c
where c.relkind = 'r'
  and c.relnamespace = (select p.relnamespace from pg_class p where p.oid = 'aetherflow.events'::regclass)
order by c.relname
