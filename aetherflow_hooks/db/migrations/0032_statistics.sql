-- Where very many deliveries wait, Postgres read as many pages of them as there are rows in its sample, 30,000, each time
-- that it looked at them anew: once a minute under load, a quarter of a second in which whoever sends waits longer. What
-- the planner has to know is in a tenth of that as well: how many endpoints there are, and which of them has very much.
-- The sample is as large as the column with the most needs, so this stands for each of them.

alter table aetherflow.deliveries
    alter column shard set statistics 10,
    alter column event_shard set statistics 10,
    alter column endpoint_id set statistics 10,
    alter column event_id set statistics 10,
    alter column due_at set statistics 10,
    alter column expires_at set statistics 10,
    alter column leased_until set statistics 10,
    alter column lease_token set statistics 10,
    alter column attempt set statistics 10,
    alter column ordering_key set statistics 10,
    alter column trigger set statistics 10;
