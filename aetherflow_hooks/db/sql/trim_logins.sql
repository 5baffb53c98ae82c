-- trim_logins: of the log-ins with one token keep only the last so many.
--   $1 token_id text
--   $2 kept bigint
-- returns id
delete from aetherflow.sessions s
where s.id in (
    select o.id from aetherflow.sessions o
    where o.token_id = $1 and o.kind = 'login'
    order by o.created_at desc
    offset $2
)
returning s.id
