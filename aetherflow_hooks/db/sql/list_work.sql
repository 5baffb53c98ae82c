-- list_work: what is undelivered, by endpoint and event, behind a place, as far as one look goes.
--   $1 after_endpoint text
--   $2 after_event text
--   $3 state text
--   $4 endpoint_id text
--   $5 tenant text
--   $6 rows_max bigint
--   $7 looked_max bigint
-- returns endpoint_id, event_id, state, attempts, due_at, trigger, is_place
--
-- Null leaves a filter out. At most $7 are looked at: where there may be more behind them that fits,
-- there is one row more, which is_place and not told.
with looked as materialized (
    select e.id as endpoint_id, d.event_id,
           case when d.leased_until > now() then 'leased' when d.due_at = 'infinity' then 'halted' else 'pending' end
           as state, d.attempt as attempts, nullif(d.due_at, 'infinity') as due_at, d.trigger
    from (
        select e.id, e.shard, e.ordering from aetherflow.endpoints e
        where e.id >= greatest($1, $4) and ($4::text is null or e.id = $4) and ($5::text is null or e.tenant = $5)
        order by e.id
    ) e
    cross join lateral (
        (
            select d.* from aetherflow.deliveries d
            where $3 is distinct from 'halted' and d.shard = e.shard and d.endpoint_id = e.id
              and d.event_id > case when e.id = $1 then $2 else '' end
            order by d.event_id
            limit $7
        )
        union all
        (
            select d.* from aetherflow.deliveries d
            where $3 = 'halted' and e.ordering is not null and d.shard = e.shard and d.endpoint_id = e.id
              and d.due_at = 'infinity' and d.event_id > case when e.id = $1 then $2 else '' end
            order by d.event_id
            limit $7
        )
    ) d
    order by e.id, d.event_id
    limit $7
), found as materialized (
    select l.* from looked l
    where $3::text is null or l.state = $3
    order by l.endpoint_id, l.event_id
    limit $6
)
select f.*, false as is_place
from found f
union all
(
    select l.*, true
    from looked l
    where (select count(*) from found) < $6 and (select count(*) from looked) = $7
    order by l.endpoint_id desc, l.event_id desc
    limit 1
)
