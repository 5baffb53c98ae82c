-- disable_endpoint: stop an endpoint that said it is gone.
--   $1 endpoint_id text
--   $2 reason text
-- returns id
update aetherflow.endpoints
set state = 'disabled', state_reason = $2, version = version + 1, updated_at = clock_timestamp()
where id = $1 and state in ('active', 'paused')
returning id
