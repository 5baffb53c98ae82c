-- emitted_since: events from a moment on, in the order of emission, for tests.
--   $1 since timestamptz
--   $2 types text[]
-- returns id, type, tenant, data, emitted_at, deliver_at, expires_at, ordering_key, channels
--
-- Null is for the beginning of the transaction, and for every type. Within the transaction that
-- emitted them they are there as well.
select e.id, e.type, e.tenant, e.data, e.emitted_at, e.deliver_at, e.expires_at, e.ordering_key,
       coalesce(e.channels, '{}') as channels
from aetherflow.events e
where e.id >= aetherflow.event_id_at(coalesce($1::timestamptz, now()))
  and e.type = any (coalesce($2::text[], array[e.type])) and e.expunged_at is null
order by e.id
