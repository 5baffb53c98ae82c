-- show_event: one event with its data.
--   $1 id text
-- returns id, tenant, type, emitted_at, deliver_at, expires_at, ordering_key, channels, data, expunged_at, cancelled_at, is_fanned_out
--
-- It is fanned out when there is a delivery for each of its endpoints. Only an event for very many is
-- begun in the outbox, and those are few.
select e.id, e.tenant, e.type, e.emitted_at, e.deliver_at, e.expires_at, e.ordering_key,
       coalesce(e.channels, '{}') as channels,
       case when e.expunged_at is null then e.data end as data, e.expunged_at, e.cancelled_at,
       not exists (
           select from aetherflow.outbox o
           where o.shard = e.shard and not o.begun and o.event_id = e.id
             and o.due_at between least(e.emitted_at, e.deliver_at) and greatest(e.emitted_at, e.deliver_at)
       ) and not exists (
           select from aetherflow.outbox o where o.shard = e.shard and o.begun and o.event_id = e.id
       ) as is_fanned_out
from aetherflow.events e
where e.shard = aetherflow.shard_of($1) and e.id = $1
