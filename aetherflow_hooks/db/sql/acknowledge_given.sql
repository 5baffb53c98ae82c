-- acknowledge_given: write what one poll was given as delivered; what was given again since stays.
--   $1 endpoint_id text
--   $2 token bigint
--   $3 given_at timestamptz
--   $4 first_due_at timestamptz
--   $5 last_due_at timestamptz
--   $6 given bigint
--   $7 looked_max bigint
-- returns shard, event_id, attempt, started_at, duration_ms
-- walks deliveries_due
--
-- A row for each that is delivered by this. They are looked for between the first and the last of them,
-- where others' can lie too, but not at more rows than $7. There are partitions for a day before now, and
-- a clock that was set back gives no time that is still to come.
with held as materialized (
    select d.row_at, d.event_id, d.attempt, d.trigger
    from (
        select d.ctid as row_at, d.event_id, d.attempt, d.trigger, d.lease_token from aetherflow.deliveries d
        where d.shard = aetherflow.shard_of($1) and d.endpoint_id = $1 and d.due_at between $4 and $5
        order by d.due_at
        limit $7
    ) d
    where d.lease_token = $2
    limit $6
), settled as (
    delete from aetherflow.deliveries d
    using held h
    where d.shard = aetherflow.shard_of($1) and d.ctid = h.row_at and d.lease_token = $2
    returning h.event_id, h.attempt, h.trigger
)
insert into aetherflow.attempts (shard, endpoint_id, event_id, attempt, status, started_at, duration_ms, outcome, verdict,
                                 trigger)
select aetherflow.shard_of($1), $1, s.event_id, s.attempt, 200, least(greatest($3, now() - interval '1 day'), now()),
       least(greatest(extract(epoch from now() - $3) * 1000, 0), 2147483647)::integer, 'answered', 'delivered', s.trigger
from settled s
returning shard, event_id, attempt, started_at, duration_ms
