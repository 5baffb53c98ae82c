-- expire_deliveries: give up the deliveries of one shard whose events are no longer kept.
--   $1 shard smallint
--   $2 moment timestamptz
--   $3 batch_max bigint
-- returns deliveries
-- walks deliveries_pkey
with recursive waiting as (
    (
        select d.endpoint_id from aetherflow.deliveries d where d.shard = $1 order by d.endpoint_id limit 1
    )
    union all
    select (
        select d.endpoint_id from aetherflow.deliveries d
        where d.shard = $1 and d.endpoint_id > w.endpoint_id
        order by d.endpoint_id
        limit 1
    )
    from waiting w
    where w.endpoint_id is not null
), old as materialized (
    select d.row_at
    from waiting w
    cross join lateral (
        select d.ctid as row_at from aetherflow.deliveries d
        where d.shard = $1 and d.endpoint_id = w.endpoint_id and d.event_id < aetherflow.event_id_at($2)
          and d.leased_until < now()
        order by d.event_id
        limit $3
        for update skip locked
    ) d
    limit $3
), gone as (
    delete from aetherflow.deliveries d
    using (select o.row_at from old o limit $3) o  -- as in record_attempts: few are expected
    where d.shard = $1 and d.ctid = o.row_at
    returning d.endpoint_id, d.event_id, d.event_shard, d.attempt
), buried as (
    insert into aetherflow.dead (shard, endpoint_id, event_id, event_shard, attempts, reason)
    select $1, g.endpoint_id, g.event_id, g.event_shard, g.attempt, 'expired' from gone g
    on conflict (shard, endpoint_id, event_id) do nothing
)
select count(*)::integer as deliveries from gone
