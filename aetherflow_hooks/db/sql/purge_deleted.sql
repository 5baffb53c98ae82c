-- purge_deleted: remove what waits for deleted endpoints, then the endpoints themselves.
--   $1 shard smallint
--   $2 batch_max bigint
-- returns deliveries
-- walks deliveries_pkey
with deleted as materialized (
    select e.ctid as row_at, e.id from aetherflow.endpoints e where e.shard = $1 and e.state = 'deleted'
), rows as materialized (
    select d.row_at
    from deleted e
    cross join lateral (
        select d.ctid as row_at from aetherflow.deliveries d
        where d.shard = $1 and d.endpoint_id = e.id
        order by d.event_id
        limit $2
        for update skip locked
    ) d
    limit $2
), gone as (
    delete from aetherflow.deliveries d
    using rows r
    where d.shard = $1 and d.ctid = r.row_at
    returning d.endpoint_id
), forgotten as (
    -- only one that had nothing waiting when we began; a fan-out that had seen it alive may still add a row
    delete from aetherflow.endpoints e
    using deleted
    where e.ctid = deleted.row_at and e.updated_at < now() - interval '1 minute'
      -- asked so, it is looked for by its key; as `not exists` it might be joined to the whole shard
      and (
          select d.event_id from aetherflow.deliveries d
          where d.shard = $1 and d.endpoint_id = deleted.id
          order by d.event_id
          limit 1
      ) is null
)
select count(*)::integer as deliveries from gone
