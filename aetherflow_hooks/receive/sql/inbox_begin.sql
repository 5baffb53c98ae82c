-- Held until the work is committed: nobody else claims it, however long that takes.
select true
from aetherflow_inbox
where event_id = $1::text and tries = $2::int and done_at is null and failed_at is null
for update skip locked
