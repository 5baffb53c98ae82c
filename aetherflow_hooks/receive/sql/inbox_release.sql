-- The first of each key may go, unless one of it is on its way.
update aetherflow_inbox as parked
set due_at = now()
from unnest($1::text[]) as given(key)
cross join lateral (
    select event_id, due_at
    from aetherflow_inbox
    where key = given.key and done_at is null and failed_at is null
    order by key, due_at, number
    limit 1
) as head
where parked.event_id = head.event_id and head.due_at = 'infinity'
