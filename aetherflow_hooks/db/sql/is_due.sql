-- is_due: whether anything is to be sent now, for tests: it may read all that waits.
--   $1 since timestamptz
-- returns is_due
--
-- What is on lease is. What comes behind another of its key that waits for its next attempt is not,
-- nor what an endpoint has waiting that has failed so often since $1 that it is left alone.
select exists (
    select from aetherflow.outbox o where o.due_at <= now()
) or exists (
    select from aetherflow.deliveries d
    join aetherflow.endpoints e on e.id = d.endpoint_id and e.state = 'active' and not e.polled
    where d.due_at <= now() and not (e.ordering is not null and exists (
        select from aetherflow.deliveries b
        where b.shard = d.shard and b.endpoint_id = d.endpoint_id and b.event_id < d.event_id
          and b.ordering_key is not distinct from d.ordering_key and b.due_at > now()
    )) and not (d.leased_until < now() and exists (
        select from aetherflow.attempts a
        where a.endpoint_id = d.endpoint_id and a.started_at >= $1
        having (count(*) >= 10 or count(*) filter (where a.status is null) >= 3)
           and count(*) filter (where a.verdict = 'delivered') = 0
    ))
) as is_due
