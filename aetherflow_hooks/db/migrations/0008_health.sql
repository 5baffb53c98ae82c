-- Health: since when an endpoint fails and does nothing else, over all restarts.

alter table aetherflow.endpoints add column failing_since timestamptz;
comment on column aetherflow.endpoints.failing_since is 'When its attempts began to fail, one and all; null: it delivers.';
alter table aetherflow.endpoints add column failing_told_at timestamptz;
comment on column aetherflow.endpoints.failing_told_at is 'When operators were told of that.';
