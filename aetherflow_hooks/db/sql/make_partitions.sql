-- make_partitions: make the days' partitions ahead of time.
--   $1 ahead_days integer
-- returns make_partitions
select aetherflow.make_partitions($1)
