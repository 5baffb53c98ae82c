-- find_session: a session that opens something now.
--   $1 id text
--   $2 kind text
-- returns id, hash, token_id, scope, tenant
select s.id, s.hash, s.token_id, s.scope, s.tenant
from aetherflow.sessions s
left join aetherflow.tokens t on t.id = s.token_id
where s.id = $1 and s.kind = $2 and s.expires_at > now()
  and (s.token_id is null or (t.revoked_at is null and t.expires_at > now()))
