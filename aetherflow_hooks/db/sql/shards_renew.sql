-- shards_renew: keep what this engine holds; a shard whose lease ran out is not among the result.
--   $1 engine_id text
--   $2 lease_seconds double precision
-- returns shard
update aetherflow.shards set leased_until = now() + make_interval(secs => $2)
where owner = $1 and leased_until > now()
returning shard
