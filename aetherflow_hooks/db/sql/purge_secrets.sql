-- purge_secrets: forget secrets that ended.
-- returns secrets
with gone as (delete from aetherflow.secrets where ends_at <= now() returning endpoint_id)
select count(*)::integer as secrets from gone
