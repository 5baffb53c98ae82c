-- use_token: write down that a token is in use.
--   $1 id text
-- returns id
update aetherflow.tokens t set last_used_at = now() where t.id = $1
returning t.id
