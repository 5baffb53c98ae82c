-- load_events: the events behind some deliveries.
--   $1 shards smallint[]
--   $2 ids text[]
-- returns id, type, data, emitted_unix_seconds, traceparent
-- walks events_pkey
--
-- Data of more bytes than any setting lets in, put there by another hand, is not read: it is null.
-- What was expunged is there no more.
select e.id, e.type, case when octet_length(e.data) <= 16777216 then e.data end as data,
       floor(extract(epoch from e.emitted_at))::bigint as emitted_unix_seconds, e.traceparent
from unnest($1::smallint[], $2::text[]) as k (shard, id)
cross join lateral (
    select e.* from aetherflow.events e where e.shard = k.shard and e.id = k.id and e.expunged_at is null limit 1
) e
