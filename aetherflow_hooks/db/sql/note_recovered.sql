-- note_recovered: endpoints that failed, and at which something has been delivered again.
--   $1 endpoint_ids text[]
--   $2 recovered_type text
-- returns endpoint_id
--
-- Operators are told of those that failed for long, or of which they have been told that they fail;
-- one that comes and goes would have them told for ever.
with changed as (
    update aetherflow.endpoints e
    set failing_since = null, failing_told_at = null
    from (
        select one.row_at, one.failing_since, one.failing_told_at
        from unnest($1::text[]) as k (id)
        cross join lateral (
            select e.ctid as row_at, e.failing_since, e.failing_told_at from aetherflow.endpoints e
            where e.id between k.id and k.id and e.failing_since is not null
            order by e.id
            limit 1
            for update
        ) one
        limit cardinality($1)
    ) s
    where e.ctid = s.row_at
    returning e.id, e.tenant, s.failing_since,
              s.failing_told_at is not null or s.failing_since < now() - interval '5 minutes' as is_news
)
select c.id as endpoint_id from changed c
where c.is_news and aetherflow.emit($2::text, json_build_object(
    'endpoint', json_build_object('id', c.id, 'tenant', c.tenant), 'failing_since', c.failing_since)::text) is not null
