-- apply_settings: let emit know of the settings that concern it.
--   $1 data_max_bytes integer
--   $2 events_days integer
-- returns one
update aetherflow.control set data_max_bytes = $1, events_days = $2
where (data_max_bytes, events_days) is distinct from ($1, $2)
returning one
