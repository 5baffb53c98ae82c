-- list_links: links that have not ended, the newest first, without what opens them; null stands for every one.
--   $1 id text
--   $2 tenant text
-- returns id, tenant, scope, token_id, created_at, expires_at
select s.id, s.tenant, s.scope, s.token_id, s.created_at, s.expires_at
from aetherflow.sessions s
where s.kind = 'link' and s.expires_at > now() and ($1::text is null or s.id = $1) and ($2::text is null or s.tenant = $2)
order by s.created_at desc, s.id
limit 1000
