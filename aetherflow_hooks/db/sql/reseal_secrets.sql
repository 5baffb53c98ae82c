-- reseal_secrets: store secrets under another key, those that are still what was read.
--   $1 endpoint_ids text[]
--   $2 made_ats timestamptz[]
--   $3 digests text[]
--   $4 secrets text[]
-- returns endpoint_id
--
-- What was read is told by its SHA-256, since it may never have been sealed, and what is bound to a
-- statement can come into the server's log.
update aetherflow.secrets k
set secret = r.secret
from unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[]) as r (endpoint_id, made_at, digest, secret)
where k.endpoint_id = r.endpoint_id and k.made_at = r.made_at
  and encode(sha256(convert_to(k.secret, 'UTF8')), 'hex') = r.digest
returning k.endpoint_id
