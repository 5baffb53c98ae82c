-- Where very many deliveries wait, a vacuum has to read their indexes whole, for the few that have left: once a minute under
-- load, and without a pause it kept a processor and who sends for 0.2 s with a million rows, for two with ten. With the
-- pauses that Postgres means for this it takes a few times as long and nobody notices; they are half as long as usual,
-- since what a transaction has pinned for long should not take minutes to clear. The outbox is small, and stays as it is.

alter table aetherflow.deliveries set (autovacuum_vacuum_cost_delay = 1);
