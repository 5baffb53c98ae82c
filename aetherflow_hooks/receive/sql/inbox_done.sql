update aetherflow_inbox set done_at = now(), body = null, error = null where event_id = $1::text
