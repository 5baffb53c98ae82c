update aetherflow_inbox
set failed_at = null, tries = 0, due_at = case when key is null then now() else 'infinity' end
where failed_at <= $1::timestamptz and (key is null or key = any($2::text[]))
returning event_id
