-- accept_restore: engines may work here; the next one to ask notes where that is.
-- returns one
update aetherflow.control c set system_identifier = null, timeline = null returning c.one
