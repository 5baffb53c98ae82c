-- delete_version: forget how the data of a type looked up to a version.
--   $1 type text
--   $2 version text
-- returns version
delete from aetherflow.payload_versions v where v.type = $1 and v.version = $2 returning v.version
