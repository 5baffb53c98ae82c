select (select count(*) from aetherflow_inbox where done_at is null and failed_at is null),
       (select count(*) from aetherflow_inbox where failed_at is not null),
       (select coalesce(extract(epoch from now() - min(received_at)), 0)::float8
        from aetherflow_inbox
        where done_at is null and failed_at is null)
