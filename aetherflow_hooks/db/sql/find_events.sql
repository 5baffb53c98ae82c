-- find_events: when each shard's next event is due, seen from now; a shard without any is left out.
--   $1 shards smallint[]
--   $2 begun boolean
-- returns shard, due_in_seconds
-- walks outbox_pkey
--
-- Reads all of the engine's shards at once, since an idle engine asks often; changes nothing.
select w.shard, extract(epoch from next.due_at - now())::double precision as due_in_seconds
from unnest($1::smallint[]) as w (shard)
cross join lateral (
    select o.due_at from aetherflow.outbox o
    where o.shard = w.shard and o.begun = $2
    order by o.due_at
    limit 1
) next
