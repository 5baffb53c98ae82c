-- engine_gone: sign this engine off.
--   $1 engine_id text
-- returns id
delete from aetherflow.engines where id = $1 returning id
