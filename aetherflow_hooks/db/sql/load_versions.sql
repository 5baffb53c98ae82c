-- load_versions: the events behind some deliveries, each as a version has it; those for which there is time.
--   $1 shards smallint[]
--   $2 ids text[]
--   $3 versions text[]
--   $4 milliseconds integer
-- returns id, version, in_time, type, data, emitted_unix_seconds, traceparent, problem
-- walks events_pkey
--
-- Likewise as in load_events; where `problem` says why there is no data, it tells nothing of it. None is
-- begun later than $4 after the first.
select e.id, k.version, t.in_time, e.type, m.made as data,
       floor(extract(epoch from e.emitted_at))::bigint as emitted_unix_seconds, e.traceparent, m.problem
from unnest($1::smallint[], $2::text[], $3::text[]) as k (shard, id, version)
cross join lateral (
    select e.* from aetherflow.events e where e.shard = k.shard and e.id = k.id and e.expunged_at is null limit 1
) e
cross join lateral (
    select clock_timestamp() < statement_timestamp() + make_interval(secs => $4::integer / 1000.0) and e.id is not null as in_time
) t
left join lateral (
    select made.* from aetherflow.make_version(
        e.type, case when octet_length(e.data) <= 16777216 then e.data end, k.version
    ) made
    where t.in_time
) m on true
