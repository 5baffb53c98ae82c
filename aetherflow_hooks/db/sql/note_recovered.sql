-- note_recovered: endpoints that failed, and at which something has been delivered again.
--   $1 endpoint_ids text[]
--   $2 recovered_type text
-- returns endpoint_id
with changed as (
    update aetherflow.endpoints e
    set failing_since = null, failing_told = false
    from (
        select one.row_at, one.failing_since
        from unnest($1::text[]) as k (id)
        cross join lateral (
            select e.ctid as row_at, e.failing_since from aetherflow.endpoints e
            where e.id between k.id and k.id and e.failing_since is not null
            order by e.id
            limit 1
            for update
        ) one
        limit cardinality($1)
    ) s
    where e.ctid = s.row_at
    returning e.id, e.tenant, s.failing_since
)
select c.id as endpoint_id from changed c
where aetherflow.emit($2::text, json_build_object(
    'endpoint', json_build_object('id', c.id, 'tenant', c.tenant), 'failing_since', c.failing_since)::text) is not null
