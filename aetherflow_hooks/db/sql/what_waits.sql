-- what_waits: what would be sent if engines worked, and when they last did.
-- returns events, deliveries, oldest_emitted_at, newest_emitted_at, last_attempt_at
select (select count(*) from aetherflow.outbox) as events, d.deliveries,
       least(d.oldest, o.oldest) as oldest_emitted_at, greatest(d.newest, o.newest) as newest_emitted_at,
       (select max(a.started_at) from aetherflow.attempts a) as last_attempt_at
from (
    select count(*) as deliveries, aetherflow.event_moment(min(d.event_id)) as oldest,
           aetherflow.event_moment(max(d.event_id)) as newest
    from aetherflow.deliveries d
) d
cross join (
    select aetherflow.event_moment(min(o.event_id)) as oldest, aetherflow.event_moment(max(o.event_id)) as newest
    from aetherflow.outbox o
) o
