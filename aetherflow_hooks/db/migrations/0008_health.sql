-- Health: since when an endpoint fails and does nothing else, over all restarts.

alter table aetherflow.endpoints add column failing_since timestamptz;
comment on column aetherflow.endpoints.failing_since is 'When its attempts began to fail, one and all; null: it delivers.';
alter table aetherflow.endpoints add column failing_told boolean not null default false;
comment on column aetherflow.endpoints.failing_told is 'Operators know of that.';
