-- examine_rights: what an engine may do, and whoever asks may not.
-- returns object, privilege
--
-- A right to some columns of a table counts, since what is needed of it is never more than some.
select r.object, p.privilege
from aetherflow.rights r
cross join lateral regexp_split_to_table(regexp_replace(r.privileges, '\([^)]*\)', '', 'g'), ',') as w (word)
cross join lateral (select trim(w.word) as privilege) p
cross join lateral (
    select c.oid from pg_class c
    where c.relname = r.object
      and c.relnamespace = (select t.relnamespace from pg_class t where t.oid = 'aetherflow.events'::regclass)
) c
where r.role = 'engine' and r.kind = 'table'
  and not case when p.privilege = 'delete' then has_table_privilege(c.oid, p.privilege)
               else has_any_column_privilege(c.oid, p.privilege) end
order by 1, 2
