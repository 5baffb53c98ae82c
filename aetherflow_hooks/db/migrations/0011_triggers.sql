-- Triggers: what made an attempt, where it was not the schedule.

alter table aetherflow.deliveries add column trigger text;
comment on column aetherflow.deliveries.trigger is 'What its next attempt was asked for by: manual; null: its schedule.';
alter table aetherflow.attempts add column trigger text;
comment on column aetherflow.attempts.trigger is 'What it was made by: manual, somebody asked for it; null: its schedule.';
