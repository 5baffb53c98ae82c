-- set_endpoint_state: make an endpoint active, paused or disabled.
--   $1 id text
--   $2 state text
-- returns id
update aetherflow.endpoints
set state = $2, state_reason = '', failing_since = null, failing_told_at = null, version = version + 1, updated_at = clock_timestamp()
where id = $1 and state <> 'deleted'
returning id
