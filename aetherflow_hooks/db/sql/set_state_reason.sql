-- set_state_reason: say why an active endpoint gets nothing at the moment, or that it does again.
--   $1 id text
--   $2 state_reason text
-- returns id
update aetherflow.endpoints
set state_reason = $2
where id = $1 and state = 'active' and state_reason <> $2
returning id
