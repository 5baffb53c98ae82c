-- engine_asleep: ask emit for notifications, or no longer.
--   $1 engine_id text
--   $2 asleep boolean
-- returns id
update aetherflow.engines set asleep = $2 where id = $1 returning id
