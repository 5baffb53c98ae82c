-- shards_take: take free shards, at most so many.
--   $1 engine_id text
--   $2 lease_seconds double precision
--   $3 shards_max bigint
-- returns shard
update aetherflow.shards s set owner = $1, leased_until = now() + make_interval(secs => $2)
from (
    select f.shard from aetherflow.shards f
    where f.leased_until <= now()
    order by f.shard
    limit $3
    for update skip locked
) free
where s.shard = free.shard
returning s.shard
