-- Where very many deliveries wait, a vacuum has to read their indexes whole, for the few that have left: once a minute under
-- load, 23,500 pages with a million rows, and the more the more wait. Without a pause that kept a processor and who sends
-- for 0.2 s; with pauses it takes a few times as long beside them. They are half as long as Postgres' own, so that it
-- comes to its end sooner where very much has left, as behind a transaction that was open for long. The outbox is small,
-- and stays as it is.

alter table aetherflow.deliveries set (autovacuum_vacuum_cost_delay = 1);
