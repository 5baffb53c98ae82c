select distinct key from aetherflow_inbox where failed_at is not null and key is not null
