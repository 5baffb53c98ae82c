-- engine_seen: say that this engine lives; tell how many do.
--   $1 engine_id text
--   $2 host text
--   $3 silent_seconds double precision
-- returns engines
with seen as (
    insert into aetherflow.engines (id, host) values ($1, $2)
    on conflict (id) do update set seen_at = now()
)
select 1 + count(*)::integer as engines
from aetherflow.engines
where id <> $1 and seen_at > now() - make_interval(secs => $3)
