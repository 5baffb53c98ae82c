-- In a transaction that has failed, this fails too.
select true from aetherflow_seen where event_id = $1::text
