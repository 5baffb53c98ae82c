-- engine_seen: say that this engine lives, and how much is under way; tell how many do.
--   $1 engine_id text
--   $2 host text
--   $3 silent_seconds double precision
--   $4 in_flight integer
-- returns engines
with seen as (
    insert into aetherflow.engines (id, host, in_flight) values ($1, $2, $4)
    on conflict (id) do update set seen_at = now(), in_flight = excluded.in_flight
)
select 1 + count(*)::integer as engines
from aetherflow.engines
where id <> $1 and seen_at > now() - make_interval(secs => $3)
