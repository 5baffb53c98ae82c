-- set_certificate: give an endpoint the certificate that we show to it; null takes it away.
--   $1 id text
--   $2 pem text
--   $3 subject text
--   $4 expires_at timestamptz
-- returns id
with found as (
    update aetherflow.endpoints
    set version = version + 1, updated_at = clock_timestamp()
    where id = $1 and state <> 'deleted'
    returning id
), taken as (
    delete from aetherflow.certificates c using found f where c.endpoint_id = f.id and $2::text is null
), given as (
    insert into aetherflow.certificates (endpoint_id, pem, subject, expires_at)
    select f.id, $2, $3, $4 from found f where $2::text is not null
    on conflict (endpoint_id) do update
    set pem = excluded.pem, subject = excluded.subject, expires_at = excluded.expires_at
)
select id from found
