update aetherflow_inbox
set error = $3::text,
    due_at = now() + $4::float8 * interval '1 second',
    failed_at = case when $5::bool then now() end
where event_id = $1::text and tries = $2::int and coalesce(done_at, failed_at) is null
