-- wake: tell every engine that a shard has new work; a hint, which may get lost.
--   $1 hint text
-- returns pg_notify
select pg_notify('aetherflow.wake', $1)
