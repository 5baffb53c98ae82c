-- Whoever waited for the row that another has put in would hold its connection for as long.
select pg_try_advisory_xact_lock(hashtextextended('aetherflow_seen:' || $1::text, 0))
