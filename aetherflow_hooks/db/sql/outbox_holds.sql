-- outbox_holds: whether events from before a moment still wait to be fanned out.
--   $1 moment timestamptz
-- returns holds
select exists (select from aetherflow.outbox where event_id < aetherflow.event_id_at($1)) as holds
