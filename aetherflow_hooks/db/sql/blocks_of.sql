-- blocks_of: how many blocks a table of ours has.
--   $1 name text
-- returns blocks
select ceil(pg_relation_size(c.oid) / current_setting('block_size')::numeric)::integer as blocks
from pg_class c
where c.relname = $1::text
  and c.relnamespace = (select p.relnamespace from pg_class p where p.oid = 'aetherflow.events'::regclass)
