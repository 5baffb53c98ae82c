-- retry_delivery: let a delivery that waits, has halted or is dead be due now.
--   $1 endpoint_id text
--   $2 event_id text
-- returns told
--
-- Tells due, or else why it cannot be sent; no row: there is no such delivery, or it is being sent.
-- Of a dead one the event must be there still, and with it the key of its order.
with able as (
    select e.shard, e.ordering,
           case when e.state in ('disabled', 'deleted') then 'its endpoint is ' || e.state
                when v.id is null then 'its event is not kept any more' else 'due' end as told,
           v.shard as event_shard, v.ordering_key, v.expires_at
    from aetherflow.endpoints e
    left join aetherflow.events v on v.shard = aetherflow.shard_of($2) and v.id = $2
    where e.id = $1
), hurried as (
    update aetherflow.deliveries d
    set due_at = now(), attempt = case when d.due_at = 'infinity' then 0 else d.attempt end
    from able a
    where a.told = 'due' and d.shard = a.shard and d.endpoint_id = $1 and d.event_id = $2 and d.leased_until < now()
    returning d.event_id
), risen as (
    delete from aetherflow.dead d
    using able a
    where a.told = 'due' and d.shard = a.shard and d.endpoint_id = $1 and d.event_id = $2
    returning d.shard, d.endpoint_id, d.event_id, d.event_shard, a.expires_at,
              case when a.ordering is not null then '/' || coalesce(a.ordering_key, '') end as ordering_key
), made as (
    insert into aetherflow.deliveries (shard, event_shard, endpoint_id, event_id, due_at, expires_at, ordering_key)
    select r.shard, r.event_shard, r.endpoint_id, r.event_id, now(), r.expires_at, r.ordering_key from risen r
    on conflict do nothing
    returning event_id
), there as (
    select d.event_id from aetherflow.deliveries d, able a
    where d.shard = a.shard and d.endpoint_id = $1 and d.event_id = $2 and d.leased_until < now()
    union all
    select d.event_id from aetherflow.dead d, able a
    where d.shard = a.shard and d.endpoint_id = $1 and d.event_id = $2
)
select a.told from able a
where exists (select from hurried) or exists (select from made) or (a.told <> 'due' and exists (select from there))
