-- accept_restore: this is the server to work on from now on.
-- returns one
update aetherflow.control c
set system_identifier = s.system_identifier, timeline = k.timeline_id
from pg_control_system() s cross join pg_control_checkpoint() k
returning c.one
