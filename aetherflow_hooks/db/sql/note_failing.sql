-- note_failing: endpoints that fail: since when, and what follows once that is long enough.
--   $1 endpoint_ids text[]
--   $2 warn_after_seconds double precision
--   $3 disable_after_seconds double precision
--   $4 failing_type text
--   $5 disabled_type text
-- returns kind, endpoint_id
--
-- Operators are told once, by an event that is there if and only if the change is; and none is
-- disabled who was not told of a day before, or as long before as the settings are apart: after a
-- quiet week the first failure is no reason.
with changed as (
    update aetherflow.endpoints e
    set failing_since = s.since,
        failing_told_at = coalesce(s.told_at, case when s.seconds >= $2 then now() end),
        state = case when s.has_ended then 'disabled' else 'active' end,
        state_reason = case when s.has_ended
            then format('every attempt has failed since %s', to_char(s.since at time zone 'UTC', 'YYYY-MM-DD HH24:MI"Z"'))
            else e.state_reason end,
        version = e.version + s.has_ended::integer,
        updated_at = case when s.has_ended then clock_timestamp() else e.updated_at end
    from (
        select one.row_at, one.told_at, coalesce(one.since, now()) as since,
               coalesce(one.seconds, 0) as seconds,
               coalesce(one.seconds >= $3 and one.told_seconds >= least(greatest($3 - $2, 0), 86400), false) as has_ended
        from unnest($1::text[]) as k (id)
        cross join lateral (
            select e.ctid as row_at, e.failing_since as since, e.failing_told_at as told_at,
                   extract(epoch from now() - e.failing_since)::double precision as seconds,
                   extract(epoch from now() - e.failing_told_at)::double precision as told_seconds
            from aetherflow.endpoints e
            where e.id between k.id and k.id and e.state = 'active'
            order by e.id
            limit 1
            for update
        ) one
        limit cardinality($1)
    ) s
    where e.ctid = s.row_at
    returning e.id, e.tenant, e.state, e.state_reason, e.failing_since,
              e.failing_told_at is not null and s.told_at is null as is_news
)
select 'disabled' as kind, c.id as endpoint_id from changed c
where c.state = 'disabled' and aetherflow.emit($5::text, json_build_object(
    'endpoint', json_build_object('id', c.id, 'tenant', c.tenant), 'reason', c.state_reason)::text) is not null
union all
select 'failing', c.id from changed c
where c.state = 'active' and c.is_news and aetherflow.emit($4::text, json_build_object(
    'endpoint', json_build_object('id', c.id, 'tenant', c.tenant), 'failing_since', c.failing_since)::text) is not null
