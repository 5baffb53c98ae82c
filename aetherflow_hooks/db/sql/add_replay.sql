-- add_replay: ask for a replay.
--   $1 id text
--   $2 tenant text
--   $3 endpoint_id text
--   $4 pattern text
--   $5 since timestamptz
--   $6 until timestamptz
--   $7 only_failed boolean
--   $8 rate_per_second double precision
-- returns id
insert into aetherflow.replays (id, tenant, endpoint_id, pattern, since, until, only_failed, rate_per_second)
values ($1, $2, $3, $4, $5, least($6, now()), $7, $8)
returning id
