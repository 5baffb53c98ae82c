-- show_event_type: one type of the catalogue.
--   $1 type text
-- returns type, description, is_built_in, schema, example, versions, deprecated_at, created_at, updated_at
select t.type, t.description, t.is_built_in, t.schema, t.example,
       array(select v.version from aetherflow.payload_versions v where v.type = t.type order by v.version) as versions,
       t.deprecated_at, t.created_at, t.updated_at
from aetherflow.event_types t
where t.type = $1
