-- add_event_type: put a type of the application's own into the catalogue, if it holds less than most.
--   $1 type text
--   $2 description text
--   $3 schema text
--   $4 example text
--   $5 most bigint
-- returns type
insert into aetherflow.event_types (type, description, schema, example)
select $1::text, $2::text, $3::text, $4::text
where (select count(*) from aetherflow.event_types t where not t.is_built_in) < $5::bigint
returning type
