update aetherflow_inbox
set failed_at = null, tries = 0, due_at = case when key is null then now() else 'infinity' end
where failed_at is not null
returning event_id
