-- find_secrets: some secrets that are not stored under one key.
--   $1 prefix text
--   $2 secrets_max integer
-- returns endpoint_id, made_at, secret
select k.endpoint_id, k.made_at, k.secret
from aetherflow.secrets k
where not starts_with(k.secret, $1)
order by k.endpoint_id, k.made_at
limit $2
