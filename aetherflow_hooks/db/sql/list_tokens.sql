-- list_tokens: tokens by age, without what opens anything; null stands for every one.
--   $1 id text
-- returns id, name, scope, tenant, state, created_at, expires_at, last_used_at
select t.id, t.name, t.scope, t.tenant,
       case when t.revoked_at is not null then 'revoked' when t.expires_at <= now() then 'expired' else 'active' end
       as state,
       t.created_at, nullif(t.expires_at, 'infinity') as expires_at, t.last_used_at
from aetherflow.tokens t
where $1::text is null or t.id = $1
order by t.created_at, t.id
