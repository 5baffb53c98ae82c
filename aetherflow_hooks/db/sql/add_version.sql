-- add_version: register how the data of a type looked up to a version.
--   $1 type text
--   $2 version text
--   $3 expression text
--   $4 description text
-- returns version
insert into aetherflow.payload_versions (type, version, expression, description)
values ($1, $2, $3, $4)
returning version
