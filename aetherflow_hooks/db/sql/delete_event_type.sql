-- delete_event_type: take a type of the application's own out of the catalogue, if it has no versions.
--   $1 type text
-- returns type
delete from aetherflow.event_types t
where t.type = $1 and not t.is_built_in
  and not exists (select from aetherflow.payload_versions v where v.type = t.type)
returning t.type
