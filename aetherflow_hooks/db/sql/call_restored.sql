-- call_restored: somebody says that this database is a copy.
-- returns one
update aetherflow.control set system_identifier = 0 returning one
