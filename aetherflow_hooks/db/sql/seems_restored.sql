-- seems_restored: the same as is_restored, and nothing is noted.
-- returns seems_restored
--
-- A standby has no log of its own that would name a timeline, and nothing is sent from there anyway.
select c.system_identifier is not null and not pg_is_in_recovery()
       and (c.system_identifier, c.timeline) is distinct from (
           s.system_identifier,
           case when not pg_is_in_recovery()
                then ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer end
       ) as seems_restored
from aetherflow.control c
cross join pg_control_system() s
