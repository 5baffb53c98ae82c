delete from aetherflow_seen
where event_id in (select event_id
                   from aetherflow_seen
                   where seen_at < now() - $1::float8 * interval '1 second'
                   order by seen_at
                   limit $2::int
                   for update skip locked)
