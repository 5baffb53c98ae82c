-- Whoever adds to a key waits for whoever ends an event of it, so that one of them sees the other.
select pg_advisory_xact_lock(hashed.lock)
from (select distinct hashtextextended('aetherflow_inbox:' || given.key, 0) as lock
      from unnest($1::text[]) as given(key)
      order by lock) as hashed
