-- A migration says whether engines from before it can work on. So they can be upgraded one by one, and restarted
-- meanwhile. Those of a database that is newer than they are had to stop before.

alter table aetherflow.migrations add column is_breaking boolean not null default false;
comment on column aetherflow.migrations.is_breaking is 'Programs from before it cannot work on.';
