create table if not exists aetherflow_inbox (
    event_id text primary key,
    number bigint generated always as identity,  -- the order in which they came
    type text not null,
    key text,                                    -- events of one key are processed one by one
    delivery text not null,
    body text,                                   -- null when it is done
    received_at timestamptz not null default now(),
    due_at timestamptz not null,                 -- infinity: another one of its key goes before
    tries integer not null default 0,
    error text,
    done_at timestamptz,
    failed_at timestamptz
);
create index if not exists aetherflow_inbox_due on aetherflow_inbox (due_at, number)
    where done_at is null and failed_at is null;
create index if not exists aetherflow_inbox_key on aetherflow_inbox (key, due_at, number)
    where done_at is null and failed_at is null and key is not null;
create index if not exists aetherflow_inbox_done on aetherflow_inbox (done_at) where done_at is not null;
create index if not exists aetherflow_inbox_failed on aetherflow_inbox (failed_at) where failed_at is not null
