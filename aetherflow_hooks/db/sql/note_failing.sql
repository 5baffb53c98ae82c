-- note_failing: endpoints that fail: since when, and what follows once that is long enough.
--   $1 endpoint_ids text[]
--   $2 warn_after_seconds double precision
--   $3 disable_after_seconds double precision
--   $4 failing_type text
--   $5 disabled_type text
-- returns kind, endpoint_id
--
-- Operators are told once, by an event that is there if and only if the change is.
with changed as (
    update aetherflow.endpoints e
    set failing_since = s.since,
        failing_told = s.told_before or s.seconds >= $2,
        state = case when s.seconds >= $3 then 'disabled' else 'active' end,
        state_reason = case when s.seconds >= $3
            then format('every attempt has failed since %s', to_char(s.since at time zone 'UTC', 'YYYY-MM-DD HH24:MI"Z"'))
            else e.state_reason end,
        version = e.version + (s.seconds >= $3)::integer,
        updated_at = case when s.seconds >= $3 then clock_timestamp() else e.updated_at end
    from (
        select one.row_at, one.failing_told as told_before, coalesce(one.failing_since, now()) as since,
               extract(epoch from now() - coalesce(one.failing_since, now()))::double precision as seconds
        from unnest($1::text[]) as k (id)
        cross join lateral (
            select e.ctid as row_at, e.failing_since, e.failing_told from aetherflow.endpoints e
            where e.id between k.id and k.id and e.state = 'active'
            order by e.id
            limit 1
            for update
        ) one
        limit cardinality($1)
    ) s
    where e.ctid = s.row_at
    returning e.id, e.tenant, e.state, e.state_reason, e.failing_since, e.failing_told and not s.told_before as is_news
)
select 'disabled' as kind, c.id as endpoint_id from changed c
where c.state = 'disabled' and aetherflow.emit($5::text, json_build_object(
    'endpoint', json_build_object('id', c.id, 'tenant', c.tenant), 'reason', c.state_reason)::text) is not null
union all
select 'failing', c.id from changed c
where c.state = 'active' and c.is_news and aetherflow.emit($4::text, json_build_object(
    'endpoint', json_build_object('id', c.id, 'tenant', c.tenant), 'failing_since', c.failing_since)::text) is not null
