-- is_restored: whether this database was brought here from another server, or from another time of it.
-- returns is_restored
--
-- The first to ask notes where it is.
with here as (
    select s.system_identifier, c.timeline_id from pg_control_system() s cross join pg_control_checkpoint() c
), first as (
    update aetherflow.control c
    set system_identifier = h.system_identifier, timeline = h.timeline_id
    from here h
    where c.system_identifier is null
    returning c.one
)
select (c.system_identifier, c.timeline) is distinct from (h.system_identifier, h.timeline_id) and not exists (select from first)
       as is_restored
from aetherflow.control c
cross join here h
