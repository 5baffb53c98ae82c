-- Where there is no key the order is of the ids, so that two statements cannot wait for each other.
insert into aetherflow_inbox (event_id, type, key, delivery, body, due_at)
select given.event_id, given.type, given.key, given.delivery, given.body,
       case when given.key is null then now() else 'infinity' end
from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]) with ordinality
     as given(event_id, type, key, delivery, body, place)
order by case when given.key is null then given.event_id end, given.place
on conflict (event_id) do nothing
