create table if not exists aetherflow_seen (
    event_id text primary key,
    seen_at timestamptz not null default now()
);
create index if not exists aetherflow_seen_at on aetherflow_seen (seen_at)
