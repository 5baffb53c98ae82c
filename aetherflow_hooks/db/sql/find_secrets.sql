-- find_secrets: some secrets and headers that are not stored under one key.
--   $1 prefix text
--   $2 secrets_max bigint
-- returns endpoint_id, header, made_at, value
--
-- A secret has no header's name, and a header no moment.
(
    select s.endpoint_id, null as header, s.made_at, s.secret as value
    from aetherflow.secrets s
    where not starts_with(s.secret, $1)
    order by s.endpoint_id, s.made_at
    limit $2
)
union all
(
    select h.endpoint_id, h.name, null, h.value
    from aetherflow.headers h
    where not starts_with(h.value, $1)
    order by h.endpoint_id, h.name
    limit $2
)
