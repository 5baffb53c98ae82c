-- add_audit: write down a change.
--   $1 actor text
--   $2 action text
--   $3 subject text
--   $4 tenant text
--   $5 before text
--   $6 after text
-- returns id
insert into aetherflow.audit (actor, action, subject, tenant, before, after)
values ($1, $2, $3, $4, $5, $6)
returning id
