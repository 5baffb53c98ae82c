-- A try is counted before it begins: an event that kills the process runs out of them too.
with due as materialized (
    select event_id
    from aetherflow_inbox
    where done_at is null and failed_at is null and due_at <= now()
    order by due_at, number
    limit $1::int
    for update skip locked
)
update aetherflow_inbox as claimed
set tries = claimed.tries + 1, due_at = now() + $2::float8 * interval '1 second'
from due
where claimed.event_id = due.event_id
returning claimed.event_id, claimed.key, claimed.body, claimed.delivery, claimed.tries
