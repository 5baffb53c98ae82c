insert into aetherflow_seen (event_id) values ($1::text) on conflict do nothing returning true
