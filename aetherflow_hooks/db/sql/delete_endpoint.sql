-- delete_endpoint: let an endpoint go: no secret, no events, and its waiting work is swept away.
--   $1 id text
-- returns id
with deleted as (
    update aetherflow.endpoints
    set state = 'deleted', version = version + 1, updated_at = clock_timestamp()
    where id = $1 and state <> 'deleted'
    returning id
), unsubscribed as (
    delete from aetherflow.subscriptions s using deleted d where s.endpoint_id = d.id
), unheaded as (
    delete from aetherflow.headers h using deleted d where h.endpoint_id = d.id
), forgotten as (
    delete from aetherflow.secrets k using deleted d where k.endpoint_id = d.id
), certificate_gone as (
    delete from aetherflow.certificates c using deleted d where c.endpoint_id = d.id
)
select id from deleted
