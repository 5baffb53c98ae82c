-- record_delivered: write the successes of one shard, which are most of all results: they leave.
--   $1 shard smallint
--   $2 endpoint_ids text[]
--   $3 event_ids text[]
--   $4 tokens text
--   $5 attempts text
--   $6 statuses text
--   $7 started_unix_us text
--   $8 durations_ms text
-- returns endpoint_id, event_id, attempt
-- walks deliveries_pkey
--
-- As in record_attempts, each row is looked up by its key before it is changed by its place, and a
-- result whose lease was lost is kept as late, and returned. Arrays of numbers come as text, and
-- moments as microseconds since 1970: the driver asks of each element of an array whether it is an
-- array too, and takes a time apart, which together cost it more than all the rest of this.
with results as materialized (
    select r.endpoint_id, r.event_id, r.token, r.attempt, r.status,
           to_timestamp(r.started_unix_us::double precision / 1000000) as started_at, r.duration_ms, r.place
    from unnest(
        $2::text[], $3::text[], $4::text::bigint[], $5::text::smallint[], $6::text::smallint[], $7::text::bigint[],
        $8::text::integer[]
    ) with ordinality as r (endpoint_id, event_id, token, attempt, status, started_unix_us, duration_ms, place)
), found as materialized (
    select r.*, d.row_at, d.trigger
    from results r
    cross join lateral (
        select d.ctid as row_at, d.trigger from aetherflow.deliveries d
        where d.shard = $1 and d.endpoint_id = r.endpoint_id and d.event_id between r.event_id and r.event_id
        order by d.event_id
        limit 1
    ) d
    limit cardinality($2)
), settled as (
    delete from aetherflow.deliveries d
    using found f
    where d.shard = $1 and d.ctid = f.row_at and d.lease_token = f.token
    returning f.*
), late as (
    select r.*
    from results r
    where (select count(*) from settled) < cardinality($2)
      and not exists (select from settled s where s.place = r.place)
      and not exists (
          select from aetherflow.attempts a
          where a.shard = $1 and a.endpoint_id = r.endpoint_id and a.started_at = r.started_at
            and a.event_id = r.event_id and a.attempt = r.attempt
      )
), logged as (
    insert into aetherflow.attempts (shard, endpoint_id, event_id, attempt, status, started_at, duration_ms,
                                     outcome, verdict, trigger)
    select $1, s.endpoint_id, s.event_id, s.attempt, s.status, s.started_at, s.duration_ms, 'answered', 'delivered',
           s.trigger
    from settled s
    union all
    select $1, l.endpoint_id, l.event_id, l.attempt, l.status, l.started_at, l.duration_ms, 'answered', 'late', null
    from late l
)
select l.endpoint_id, l.event_id, l.attempt from late l
