-- rotate_secret: give an endpoint a new secret; those before it sign along for a while.
--   $1 id text
--   $2 secret text
--   $3 overlap_seconds double precision
-- returns id
with found as (
    update aetherflow.endpoints
    set version = version + 1, updated_at = clock_timestamp()
    where id = $1 and state <> 'deleted'
    returning id
), ending as (
    update aetherflow.secrets k
    set ends_at = least(k.ends_at, now() + make_interval(secs => $3))
    from found f
    where k.endpoint_id = f.id
), added as (
    insert into aetherflow.secrets (endpoint_id, secret) select f.id, $2 from found f
)
select id from found
