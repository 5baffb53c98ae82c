-- rotate_secret: give an endpoint a new secret; those before it sign along for a while.
--   $1 id text
--   $2 secret text
--   $3 public_key text
--   $4 leads boolean
--   $5 overlap_seconds double precision
-- returns was_found
select aetherflow.rotate_secret($1, $2, $3, $4, $5) as was_found
