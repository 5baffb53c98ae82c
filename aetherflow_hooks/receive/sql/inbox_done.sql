-- Marked before the work, and committed with it: until then nobody else claims it, however long that takes.
-- By its key: where the table was empty when this was planned, the index of what is due would look as good.
update aetherflow_inbox
set done_at = now(), body = null, error = null
where event_id = $1::text and tries = $2::int and coalesce(done_at, failed_at) is null
returning true
