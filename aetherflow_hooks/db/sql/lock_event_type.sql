-- lock_event_type: let nobody else change a type or its versions until the transaction ends.
--   $1 type text
-- returns type, example
select t.type, t.example from aetherflow.event_types t where t.type = $1 for update
