-- list_events: the newest events before a place, as far back as one look goes.
--   $1 before text
--   $2 since timestamptz
--   $3 until timestamptz
--   $4 tenant text
--   $5 type text
--   $6 channel text
--   $7 rows_max bigint
--   $8 looked_max bigint
-- returns id, tenant, type, emitted_at, deliver_at, expires_at, ordering_key, channels, data_bytes, looked_to
--
-- $5 is a pattern, which means what it does for endpoints: patterns_of() for each row would take a
-- second. Null leaves a filter out. At most $8 events of each shard are looked at, so that what is
-- rare costs no more than what is not: there is one row more, whose looked_to tells behind which
-- place to go on; null: there is nothing more. A shard of which more was to be seen bounds what is
-- told of all, or something in between would be left out.
with looked as materialized (
    select e.id, e.tenant, e.type, e.emitted_at, e.deliver_at, e.expires_at, e.ordering_key, e.channels,
           octet_length(e.data) as data_bytes,
           row_number() over (partition by s.shard order by e.id desc) as place
    from aetherflow.shards s
    cross join lateral (
        select e.* from aetherflow.events e
        where e.shard = s.shard and e.id < least($1::text, aetherflow.event_id_at($3))
          and e.id >= coalesce(aetherflow.event_id_at($2), '')
        order by e.id desc
        limit $8
    ) e
), seen as (
    select max(l.id) filter (where l.place = $8) as looked_to from looked l
), found as (
    select l.* from looked l
    cross join seen
    where l.id >= coalesce(seen.looked_to, '') and ($4::text is null or l.tenant = $4)
      and ($5::text is null or l.type = $5 or ($5 = '*' and not starts_with(l.type, 'aetherflow' || '.'))
           or (right($5, 2) = '.*' and starts_with(l.type, left($5, -1))))
      and ($6::text is null or $6 = any (l.channels))
    order by l.id desc
    limit $7
)
select f.id, f.tenant, f.type, f.emitted_at, f.deliver_at, f.expires_at, f.ordering_key,
       coalesce(f.channels, '{}') as channels, f.data_bytes, null::text as looked_to
from found f
union all
select null, null, null, null, null, null, null, null, null,
       case when (select count(*) from found) = $7 then (select min(f.id) from found f) else seen.looked_to end
from seen
order by id desc nulls last
