-- measure_partition: how many blocks a day's table has, how many bytes with what is kept beside it, and where it is.
--   $1 name text
-- returns blocks, bytes, database, schema
select ceil(pg_relation_size(c.oid) / current_setting('block_size')::numeric)::bigint as blocks,
       pg_table_size(c.oid) as bytes, current_database()::text as database, n.nspname::text as schema
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where c.relname = $1::text
  and c.relnamespace = (select p.relnamespace from pg_class p where p.oid = 'aetherflow.events'::regclass)
