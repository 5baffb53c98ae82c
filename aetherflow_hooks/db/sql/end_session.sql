-- end_session: let a session open nothing any more.
--   $1 id text
--   $2 kind text
--   $3 tenant text
-- returns id
delete from aetherflow.sessions s
where s.id = $1 and s.kind = $2 and ($3::text is null or s.tenant = $3)
returning s.id
