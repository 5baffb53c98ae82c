-- expunge_event: delete the content of one event; false: there is none of this id.
--   $1 id text
-- returns expunge
select aetherflow.expunge($1)
