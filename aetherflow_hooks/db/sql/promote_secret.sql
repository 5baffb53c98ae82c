-- promote_secret: let the secret that waits make X-AetherFlow-Signature; the others sign along.
--   $1 id text
--   $2 overlap_seconds double precision
-- returns was_found
select aetherflow.promote_secret($1, $2) as was_found
