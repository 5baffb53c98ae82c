-- is_restored: whether this database was brought here from another server, or from another time of it.
-- returns is_restored
--
-- The first to ask notes where it is. The timeline is that of the log which is written now: the
-- control file learns of a promotion with the next checkpoint, which may be minutes away.
with here as (
    select s.system_identifier, ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer as timeline
    from pg_control_system() s
), first as (
    update aetherflow.control c
    set system_identifier = h.system_identifier, timeline = h.timeline
    from here h
    where c.system_identifier is null
    returning c.one
)
select c.system_identifier is not null and (c.system_identifier, c.timeline) is distinct from (h.system_identifier, h.timeline)
       as is_restored
from aetherflow.control c
cross join here h
