-- cancel_event: let an event go to nobody that has not been fanned out; false: there is none that waits.
--   $1 id text
-- returns cancel_event
select aetherflow.cancel_event($1)
