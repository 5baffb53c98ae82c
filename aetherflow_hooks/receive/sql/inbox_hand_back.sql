-- What was broken off has not been tried.
update aetherflow_inbox
set tries = tries - 1, due_at = now()
where event_id = $1::text and tries = $2::int and coalesce(done_at, failed_at) is null
