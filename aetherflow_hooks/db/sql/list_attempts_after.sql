-- list_attempts_after: the attempts after a place, the oldest first, as far as one look goes.
--   $1 at timestamptz
--   $2 at_endpoint text
--   $3 at_event text
--   $4 at_attempt smallint
--   $5 since timestamptz
--   $6 until timestamptz
--   $7 endpoint_id text
--   $8 tenant text
--   $9 type text
--   $10 only_failed boolean
--   $11 verdict text
--   $12 status_min integer
--   $13 status_max integer
--   $14 error text
--   $15 only_last boolean
--   $16 rows_max bigint
--   $17 looked_max bigint
-- returns endpoint_id, event_id, attempt, trigger, started_at, duration_ms, outcome, verdict, status, error, tenant, type, is_place
--
-- Otherwise as list_attempts.
with looked as materialized (
    (
        select a.endpoint_id, a.event_id, a.attempt, a.trigger, a.started_at, a.duration_ms, a.outcome, a.verdict,
               a.status, a.error
        from aetherflow.attempts a
        where $7::text is null and not $10 and a.shard >= 0 and a.started_at >= $5 and a.started_at < $6 and a.started_at >= $1
          and (a.started_at, a.endpoint_id, a.event_id, a.attempt) > ($1, $2, $3, $4)
        order by a.started_at asc, a.endpoint_id asc, a.event_id asc, a.attempt asc
        limit $17
    )
    union all
    (
        select a.endpoint_id, a.event_id, a.attempt, a.trigger, a.started_at, a.duration_ms, a.outcome, a.verdict,
               a.status, a.error
        from aetherflow.attempts a
        where $7::text is null and $10 and a.verdict <> 'delivered'
          and a.started_at >= $5 and a.started_at < $6 and a.started_at >= $1
          and (a.started_at, a.endpoint_id, a.event_id, a.attempt) > ($1, $2, $3, $4)
        order by a.started_at asc, a.endpoint_id asc, a.event_id asc, a.attempt asc
        limit $17
    )
    union all
    (
        select a.endpoint_id, a.event_id, a.attempt, a.trigger, a.started_at, a.duration_ms, a.outcome, a.verdict,
               a.status, a.error
        from aetherflow.attempts a
        where a.shard = aetherflow.shard_of($7) and a.endpoint_id = $7 and (not $10 or a.verdict <> 'delivered')
          and a.started_at >= $5 and a.started_at < $6 and a.started_at >= $1
          and (a.started_at, a.endpoint_id, a.event_id, a.attempt) > ($1, $2, $3, $4)
        order by a.started_at asc, a.endpoint_id asc, a.event_id asc, a.attempt asc
        limit $17
    )
), found as materialized (
    select l.*, e.tenant, v.type
    from (
        select l.* from looked l
        where ($11::text is null or l.verdict = $11) and ($12::integer is null or l.status >= $12)
          and ($13::integer is null or l.status <= $13)
          and ($14::text is null or position(lower($14) in lower(l.error)) > 0)
        order by l.started_at asc, l.endpoint_id asc, l.event_id asc, l.attempt asc
    ) l
    left join lateral (
        select e.tenant from aetherflow.endpoints e where e.id = l.endpoint_id limit 1
    ) e on true
    left join lateral (
        select v.type from aetherflow.events v where v.shard = aetherflow.shard_of(l.event_id) and v.id = l.event_id limit 1
    ) v on true
    where ($8::text is null or e.tenant = $8)
      and ($9::text is null or v.type = $9 or ($9 = '*' and not starts_with(v.type, 'aetherflow' || '.'))
           or (right($9, 2) = '.*' and starts_with(v.type, left($9, -1))))
      and not ($15 and exists (
          select from aetherflow.attempts a
          where a.event_id = l.event_id and a.endpoint_id = l.endpoint_id and a.verdict = l.verdict
            and a.started_at > l.started_at
      ))
    order by l.started_at asc, l.endpoint_id asc, l.event_id asc, l.attempt asc
    limit $16
)
select f.*, false as is_place
from found f
union all
(
    select l.*, null, null, true
    from looked l
    where (select count(*) from found) < $16 and (select count(*) from looked) = $17
    order by l.started_at desc, l.endpoint_id desc, l.event_id desc, l.attempt desc
    limit 1
)
