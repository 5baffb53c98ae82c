-- retry_delivery: let a delivery be sent now that waits, has halted, is dead or was delivered.
--   $1 endpoint_id text
--   $2 event_id text
-- returns told
--
-- Tells due, or else why it is not sent; no row: there is no such delivery. Of one that is not
-- waiting the event must be there still, and with it the key of its order. Who asks at the same
-- moment as somebody else finds it as it was before, and makes nothing of it; or finds what the other
-- asked for, though its own transaction, and its now(), began before: hence the clock.
with able as (
    select e.shard, e.ordering,
           case when e.state in ('disabled', 'deleted') then 'its endpoint is ' || e.state
                when v.id is null then 'its event is not kept any more'
                when v.expunged_at is not null then 'the content of its event was deleted' else 'due' end as told,
           v.shard as event_shard, v.ordering_key, v.expires_at
    from aetherflow.endpoints e
    left join aetherflow.events v on v.shard = aetherflow.shard_of($2) and v.id = $2
    where e.id = $1
), waiting as materialized (
    select d.leased_until >= now() as is_leased, d.trigger = 'manual' and d.due_at <= clock_timestamp() as is_asked
    from able a
    join aetherflow.deliveries d on d.shard = a.shard and d.endpoint_id = $1 and d.event_id = $2
), done as materialized (
    select d.event_id from able a
    join aetherflow.dead d on d.shard = a.shard and d.endpoint_id = $1 and d.event_id = $2
    union all
    (
        select t.event_id from aetherflow.attempts t
        where t.event_id = $2 and t.endpoint_id = $1 and t.verdict = 'delivered'
          and t.started_at >= aetherflow.event_moment($2) - interval '1 day'
        limit 1
    )
), hurried as (
    update aetherflow.deliveries d
    set due_at = now(), trigger = 'manual', attempt = case when d.due_at = 'infinity' then 0 else d.attempt end
    from able a
    where a.told = 'due' and d.shard = a.shard and d.endpoint_id = $1 and d.event_id = $2 and d.leased_until < now()
      and not coalesce(d.trigger = 'manual' and d.due_at <= clock_timestamp(), false)
    returning d.event_id
), risen as (
    delete from aetherflow.dead d
    using able a
    where a.told = 'due' and d.shard = a.shard and d.endpoint_id = $1 and d.event_id = $2
), made as (
    insert into aetherflow.deliveries (shard, event_shard, endpoint_id, event_id, due_at, expires_at, ordering_key, trigger)
    select a.shard, a.event_shard, $1, $2, now(), a.expires_at,
           case when a.ordering is not null then '/' || coalesce(a.ordering_key, '') end, 'manual'
    from able a
    where a.told = 'due' and exists (select from done) and not exists (select from waiting)
    on conflict do nothing
    returning event_id
)
select case when exists (select from hurried) or exists (select from made) then 'due'
            when a.told <> 'due' then a.told
            when exists (select from waiting w where w.is_leased) then 'it is being sent'
            else 'it is about to be, as was asked before' end as told
from able a
where exists (select from waiting) or exists (select from done)
