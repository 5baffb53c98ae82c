-- change_event_type: write a type anew, if nobody has changed it since it was looked at.
--   $1 type text
--   $2 updated_at timestamptz
--   $3 description text
--   $4 schema text
--   $5 example text
--   $6 deprecated boolean
-- returns type
--
-- What is deprecated already stays so since then.
update aetherflow.event_types t
set description = $3, schema = $4, example = $5, updated_at = clock_timestamp(),
    deprecated_at = case when $6::boolean then coalesce(t.deprecated_at, clock_timestamp()) end
where t.type = $1 and t.updated_at = $2
returning t.type
