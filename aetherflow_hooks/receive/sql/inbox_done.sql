-- Marked before the work, and committed with it: until then nobody else claims it, however long that takes.
with mine as materialized (
    select event_id
    from aetherflow_inbox
    where event_id = $1::text and tries = $2::int and done_at is null and failed_at is null
    for update skip locked
)
update aetherflow_inbox as done
set done_at = now(), body = null, error = null
from mine
where done.event_id = mine.event_id
returning true
