-- add_token: let a token open the API.
--   $1 id text
--   $2 hash bytea
--   $3 name text
--   $4 scope text
--   $5 tenant text
--   $6 expires_at timestamptz
-- returns id
insert into aetherflow.tokens (id, hash, name, scope, tenant, expires_at)
values ($1, $2, $3, $4, $5, coalesce($6::timestamptz, 'infinity'))
returning id
