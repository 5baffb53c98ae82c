-- is_due: whether anything is to be sent now, for tests: it may read all that waits.
-- returns is_due
--
-- What is on lease is; what comes behind another of its key that waits for its next attempt is not.
select exists (
    select from aetherflow.outbox o where o.due_at <= now()
) or exists (
    select from aetherflow.deliveries d
    join aetherflow.endpoints e on e.id = d.endpoint_id and e.state = 'active' and not e.polled
    where d.due_at <= now() and not (e.ordering is not null and exists (
        select from aetherflow.deliveries b
        where b.shard = d.shard and b.endpoint_id = d.endpoint_id and b.event_id < d.event_id
          and b.ordering_key is not distinct from d.ordering_key and b.due_at > now()
    ))
) as is_due
