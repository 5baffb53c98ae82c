-- is_called_restored: whether somebody has said that this database is a copy.
-- returns is_called_restored
select coalesce(c.system_identifier = 0, false) as is_called_restored from aetherflow.control c
