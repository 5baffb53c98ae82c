-- shards_count: how many shards there are.
-- returns shards
select aetherflow.shard_count() as shards
