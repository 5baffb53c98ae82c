-- count_acknowledged: how many of what a poll was given at that moment have been acknowledged.
--   $1 endpoint_id text
--   $2 given_at timestamptz
-- returns acknowledged
select count(*)::integer as acknowledged from aetherflow.attempts a
where a.shard = aetherflow.shard_of($1) and a.endpoint_id = $1 and a.started_at = $2 and a.verdict = 'delivered'
