-- find_events: when each shard's next event is due, seen from now; a shard without any is left out.
--   $1 shards smallint[]
--   $2 sinces_seconds_ago double precision[]
--   $3 begun boolean
-- returns shard, due_at, due_in_seconds
-- walks outbox_pkey
--
-- Reads all of the engine's shards at once, since an idle engine asks often; changes nothing. While
-- some old snapshot keeps vacuum from its work, the way to the first row leads past all that have
-- been fanned out since, unless $2 says how far back to begin.
select w.shard, next.due_at,
       extract(epoch from least(next.due_at, now() + interval '1 day') - now())::double precision as due_in_seconds
from unnest($1::smallint[], $2::double precision[]) as w (shard, seconds_ago)
cross join lateral (
    select o.due_at from aetherflow.outbox o
    where o.shard = w.shard and o.begun = $3 and o.due_at >= now() - make_interval(secs => w.seconds_ago)
    order by o.due_at
    limit 1
) next
