-- reseal_secrets: store what is sealed under another key, those that are still what was read.
--   $1 endpoint_ids text[]
--   $2 headers text[]
--   $3 made_ats timestamptz[]
--   $4 seen text[]
--   $5 sealed text[]
-- returns endpoint_id
--
-- What was read is told by the transaction that wrote it, and not by itself: it may never have been
-- sealed, and what is bound to a statement can come into the server's log.
with resealed as materialized (
    select * from unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::text[])
        as r (endpoint_id, header, made_at, seen, sealed)
), secrets as (
    update aetherflow.secrets k
    set secret = r.sealed
    from resealed r
    where k.endpoint_id = r.endpoint_id and k.made_at = r.made_at and k.xmin::text = r.seen
    returning k.endpoint_id
), headers as (
    update aetherflow.headers h
    set value = r.sealed
    from resealed r
    where h.endpoint_id = r.endpoint_id and h.name = r.header and h.xmin::text = r.seen
    returning h.endpoint_id
), certificates as (
    update aetherflow.certificates c
    set pem = r.sealed
    from resealed r
    where c.endpoint_id = r.endpoint_id and r.header = ':certificate' and c.xmin::text = r.seen
    returning c.endpoint_id
)
select s.endpoint_id from secrets s
union all
select h.endpoint_id from headers h
union all
select c.endpoint_id from certificates c
