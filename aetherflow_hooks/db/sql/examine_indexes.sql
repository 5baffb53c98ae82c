-- examine_indexes: our indexes, how large they are, and for how many rows.
-- returns name, table_name, is_valid, bytes, rows
select c.relname::text as name, t.relname::text as table_name, i.indisvalid and i.indisready as is_valid,
       case when c.relkind = 'i' then pg_relation_size(c.oid) else 0 end as bytes,
       pg_stat_get_live_tuples(t.oid) + pg_stat_get_dead_tuples(t.oid) as rows
from pg_index i
join pg_class c on c.oid = i.indexrelid
join pg_class t on t.oid = i.indrelid
where t.relnamespace = (select p.relnamespace from pg_class p where p.oid = 'aetherflow.events'::regclass)
order by c.relname
