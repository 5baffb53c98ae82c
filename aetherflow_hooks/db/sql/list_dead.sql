-- list_dead: what was given up before a place, the last first, as far as one look goes.
--   $1 before_at timestamptz
--   $2 before_endpoint text
--   $3 before_event text
--   $4 endpoint_id text
--   $5 tenant text
--   $6 rows_max bigint
--   $7 looked_max bigint
-- returns endpoint_id, event_id, attempts, reason, died_at, is_place
--
-- Null leaves a filter out; a tenant's are looked for at its endpoints. At most $7 are looked at: where
-- there may be more behind them that fits, there is one row more, which is_place and not told.
with looked as materialized (
    (
        select d.endpoint_id, d.event_id, d.attempts, d.reason, d.died_at
        from generate_series(0, aetherflow.shard_count() - 1) as s (shard)
        cross join lateral (
            select d.* from aetherflow.dead d
            where d.shard = s.shard::smallint and d.died_at <= $1 and (d.died_at, d.endpoint_id, d.event_id) < ($1, $2, $3)
            order by d.died_at desc, d.endpoint_id desc, d.event_id desc
            limit $7
        ) d
        where $4::text is null and $5::text is null
        order by d.died_at desc, d.endpoint_id desc, d.event_id desc
        limit $7
    )
    union all
    (
        select d.endpoint_id, d.event_id, d.attempts, d.reason, d.died_at
        from aetherflow.dead d
        where d.endpoint_id = $4 and $5::text is null and d.died_at <= $1 and (d.died_at, d.endpoint_id, d.event_id) < ($1, $2, $3)
        order by d.died_at desc, d.endpoint_id desc, d.event_id desc
        limit $7
    )
    union all
    (
        select d.endpoint_id, d.event_id, d.attempts, d.reason, d.died_at
        from aetherflow.endpoints e
        cross join lateral (
            select d.* from aetherflow.dead d
            where d.endpoint_id = e.id and d.died_at <= $1 and (d.died_at, d.endpoint_id, d.event_id) < ($1, $2, $3)
            order by d.died_at desc, d.endpoint_id desc, d.event_id desc
            limit $6
        ) d
        where e.tenant = $5 and ($4::text is null or e.id = $4)
        order by d.died_at desc, d.endpoint_id desc, d.event_id desc
        limit $6
    )
), found as materialized (
    select l.* from looked l
    order by l.died_at desc, l.endpoint_id desc, l.event_id desc
    limit $6
)
select f.*, false as is_place
from found f
union all
(
    select l.*, true
    from looked l
    where (select count(*) from found) < $6 and (select count(*) from looked) = $7
    order by l.died_at, l.endpoint_id, l.event_id
    limit 1
)
