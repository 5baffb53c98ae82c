-- find_events: when each shard's next event is due, seen from now; a shard without any is left out.
--   $1 shards smallint[]
--   $2 sinces timestamptz[]
--   $3 begun boolean
-- returns shard, due_at, due_in_seconds, xmin, xmax
-- walks outbox_pkey
--
-- Reads all of the engine's shards at once, since an idle engine asks often; changes nothing. While
-- some old snapshot keeps vacuum from its work, the way to the first row leads past all that have
-- been fanned out since, unless $2 says where to begin. There is one row more, without a shard: when
-- this was asked, and what its snapshot can see.
select w.shard, next.due_at,
       extract(epoch from least(next.due_at, now() + interval '1 day') - now())::double precision as due_in_seconds,
       null::bigint as xmin, null::bigint as xmax
from unnest($1::smallint[], $2::timestamptz[]) as w (shard, since)
cross join lateral (
    select o.due_at from aetherflow.outbox o
    where o.shard = w.shard and o.begun = $3 and o.due_at >= w.since
    order by o.due_at
    limit 1
) next
union all
select null, now(), 0, pg_snapshot_xmin(s.seen)::text::bigint, pg_snapshot_xmax(s.seen)::text::bigint
from (select pg_current_snapshot() as seen) s
