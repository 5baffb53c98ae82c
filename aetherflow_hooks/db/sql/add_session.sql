-- add_session: let somebody look at the dashboard for a while.
--   $1 id text
--   $2 hash bytea
--   $3 kind text
--   $4 token_id text
--   $5 scope text
--   $6 tenant text
--   $7 seconds double precision
-- returns expires_at
insert into aetherflow.sessions (id, hash, kind, token_id, scope, tenant, expires_at)
values ($1, $2, $3, $4, $5, $6, now() + make_interval(secs => $7))
returning expires_at
