-- list_audit: changes, the last first; null leaves a filter out.
--   $1 before bigint
--   $2 subject text
--   $3 rows_max bigint
-- returns id, at, actor, action, subject, tenant, before, after
select a.id, a.at, a.actor, a.action, a.subject, a.tenant, a.before, a.after
from aetherflow.audit a
where a.id < $1 and ($2::text is null or a.subject = $2)
order by a.id desc
limit $3
