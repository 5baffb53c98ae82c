-- find_token: a token that opens something now.
--   $1 id text
-- returns id, hash, scope, tenant, is_unused
select t.id, t.hash, t.scope, t.tenant,
       t.last_used_at is null or t.last_used_at < now() - interval '1 minute' as is_unused
from aetherflow.tokens t
where t.id = $1 and t.revoked_at is null and t.expires_at > now()
