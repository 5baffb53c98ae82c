-- shards_leave: hand shards back, for another engine to take at once.
--   $1 engine_id text
--   $2 shards smallint[]
-- returns shard
update aetherflow.shards set leased_until = '-infinity'
where owner = $1 and shard = any ($2)
returning shard
