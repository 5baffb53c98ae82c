-- list_versions: the versions of a type in their order, or one of them.
--   $1 type text
--   $2 version text
-- returns type, version, expression, description, created_at
select v.type, v.version, v.expression, v.description, v.created_at
from aetherflow.payload_versions v
where v.type = $1 and ($2::text is null or v.version = $2)
order by v.version
