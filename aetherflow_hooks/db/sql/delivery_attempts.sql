-- delivery_attempts: every attempt of one delivery, in their order.
--   $1 endpoint_id text
--   $2 event_id text
-- returns attempt, trigger, started_at, duration_ms, outcome, verdict, status, error, response
select a.attempt, a.trigger, a.started_at, a.duration_ms, a.outcome, a.verdict, a.status, a.error, a.response
from aetherflow.attempts a
where a.event_id = $2 and a.endpoint_id = $1 and a.started_at >= aetherflow.event_moment($2) - interval '1 day'
order by a.started_at
