-- revoke_token: take a token back.
--   $1 id text
-- returns id
update aetherflow.tokens t
set revoked_at = now()
where t.id = $1 and t.revoked_at is null
returning t.id
