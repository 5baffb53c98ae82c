-- give_deliveries: give what is due to whoever polls for one endpoint, the oldest first, for a limited time.
--   $1 endpoint_id text
--   $2 given_max bigint
--   $3 lease_seconds double precision
--   $4 token bigint
--   $5 bytes_max bigint
--   $6 ahead_max bigint
-- returns looked, kind, event_id, attempt, at, duration_ms, due_at, type, data, emitted_unix_seconds
-- walks deliveries_due, events_pkey
--
-- At least one row, with how many were looked at. Those that are given come with their event; the data
-- of them together has at most $5 bytes, but for one that alone has more. What is given to others stands
-- before what is not; where that is $6 rows or more, nothing is given. What was given before and not
-- acknowledged is recorded as an attempt that timed out, if that was within a day, for which there are
-- partitions; its row is one of missed. What is not worth giving any more dies, and is not told.
with wanted as materialized (
    select e.id, e.shard from aetherflow.endpoints e
    where e.id between $1 and $1 and e.polled and e.state = 'active'
    order by e.id
    limit 1
), due as materialized (
    select w.shard, d.*
    from wanted w
    cross join lateral (
        select ahead.due_at from (
            select d.due_at, d.leased_until from aetherflow.deliveries d
            where d.shard = w.shard and d.endpoint_id = w.id and d.due_at <= now()
            order by d.due_at
            limit $6
        ) ahead
        where ahead.leased_until < now()
        order by ahead.due_at
        limit 1
    ) first
    cross join lateral (
        select d.ctid as row_at, d.event_id, d.event_shard, d.due_at, d.expires_at, d.leased_until, d.lease_token,
               d.attempt, d.trigger
        from aetherflow.deliveries d
        where d.shard = w.shard and d.endpoint_id = w.id and d.due_at between first.due_at and now()
          and d.leased_until < now()
        order by d.due_at
        limit $2
        for update skip locked
    ) d
), seen as materialized (
    select d.*, e.bytes,
           case when e.bytes is null or d.expires_at <= now() then 'expired'
                when e.bytes > 16777216 then 'too_large' end as reason
    from due d
    left join lateral (
        select octet_length(e.data) as bytes from aetherflow.events e
        where e.shard = d.event_shard and e.id = d.event_id and e.expunged_at is null
        limit 1
    ) e on true
), fitting as materialized (
    select f.* from (
        select s.*, sum(s.bytes) over (order by s.due_at, s.event_id) as bytes_so_far
        from seen s
        where s.reason is null
    ) f
    where f.bytes_so_far <= $5 or f.bytes_so_far = f.bytes
), given as (
    update aetherflow.deliveries d
    set leased_until = now() + make_interval(secs => $3), lease_token = $4, attempt = least(d.attempt, 32766) + 1,
        -- asked for by hand since the last lease ended, or before the first one began
        trigger = case when f.lease_token = 0 or f.due_at > f.leased_until then d.trigger end
    from fitting f
    where d.shard = f.shard and d.ctid = f.row_at
    returning f.event_id, f.event_shard, f.due_at, d.attempt
), gone as (
    delete from aetherflow.deliveries d
    using seen s
    where s.reason is not null and d.shard = s.shard and d.ctid = s.row_at
    returning s.shard, s.event_id, s.event_shard, s.attempt, s.reason
), buried as (
    insert into aetherflow.dead (shard, endpoint_id, event_id, event_shard, attempts, reason)
    select g.shard, $1, g.event_id, g.event_shard, g.attempt, g.reason from gone g
    on conflict (shard, endpoint_id, event_id) do update
    set attempts = excluded.attempts, reason = excluded.reason, died_at = excluded.died_at
), missed as (
    insert into aetherflow.attempts (shard, endpoint_id, event_id, attempt, started_at, duration_ms, outcome, verdict,
                                     error, trigger)
    select m.shard, $1, m.event_id, m.attempt, m.leased_until - make_interval(secs => m.seconds), m.seconds * 1000,
           'timed_out', 'retry', format('not acknowledged within %s s', m.seconds),
           case when m.due_at < m.leased_until then m.trigger end
    from (
        select s.*, (s.lease_token & 4095)::integer as seconds from seen s
        where s.lease_token <> 0 and (s.reason is not null or exists (
            select from fitting f where f.event_id = s.event_id
        ))
    ) m
    where m.leased_until - make_interval(secs => m.seconds) > now() - interval '1 day'
    returning event_id, attempt, started_at, duration_ms
)
select l.looked, told.kind, told.event_id, told.attempt, told.at, told.duration_ms, told.due_at, told.type, told.data,
       told.emitted_unix_seconds
from (select count(*)::integer as looked from due) l
left join (
    select 'given' as kind, g.event_id, g.attempt, now() as at, null::integer as duration_ms, g.due_at, e.type, e.data,
           floor(extract(epoch from e.emitted_at))::bigint as emitted_unix_seconds
    from given g
    cross join lateral (
        select e.* from aetherflow.events e where e.shard = g.event_shard and e.id = g.event_id limit 1
    ) e
    union all
    select 'missed', m.event_id, m.attempt, m.started_at, m.duration_ms, null, null, null, null from missed m
) told on true
