-- schema_of: what the data of a type should look like; null: the type is not registered.
--   $1 type text
-- returns schema_of
select aetherflow.schema_of($1::text) as schema_of
