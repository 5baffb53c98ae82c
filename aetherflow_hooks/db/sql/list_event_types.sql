-- list_event_types: the catalogue, without what data looks like; null leaves no type out.
--   $1 deprecated boolean
-- returns type, description, is_built_in, has_schema, deprecated_at, created_at, updated_at
select t.type, t.description, t.is_built_in, t.schema is not null as has_schema, t.deprecated_at, t.created_at, t.updated_at
from aetherflow.event_types t
where $1::boolean is null or (t.deprecated_at is not null) = $1
order by t.type
