-- find_secrets: secrets, headers and certificates that are not stored under one key, of the next endpoints.
--   $1 prefix text
--   $2 after_endpoint text
--   $3 endpoints_max bigint
-- returns endpoint_id, header, made_at, seen, value
--
-- A secret has no header's name, a header no moment; `:certificate` is no name of one. `seen` tells whether a row has changed.
with found as materialized (
    select s.endpoint_id from aetherflow.secrets s where not starts_with(s.secret, $1) and s.endpoint_id > $2
    union
    select h.endpoint_id from aetherflow.headers h where not starts_with(h.value, $1) and h.endpoint_id > $2
    union
    select c.endpoint_id from aetherflow.certificates c where not starts_with(c.pem, $1) and c.endpoint_id > $2
    order by endpoint_id
    limit $3
)
select s.endpoint_id, null as header, s.made_at, s.xmin::text as seen, s.secret as value
from found e join aetherflow.secrets s on s.endpoint_id = e.endpoint_id
where not starts_with(s.secret, $1)
union all
select h.endpoint_id, h.name, null, h.xmin::text, h.value
from found e join aetherflow.headers h on h.endpoint_id = e.endpoint_id
where not starts_with(h.value, $1)
union all
select c.endpoint_id, ':certificate', null, c.xmin::text, c.pem
from found e join aetherflow.certificates c on c.endpoint_id = e.endpoint_id
where not starts_with(c.pem, $1)
order by endpoint_id
