delete from aetherflow_inbox
where event_id in (select event_id
                   from aetherflow_inbox
                   where done_at < now() - $1::float8 * interval '1 second'
                   order by done_at
                   limit $2::int
                   for update skip locked)
returning event_id
