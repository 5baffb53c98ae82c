-- cancel_replay: make no more of a replay; what it has made stays.
--   $1 id text
-- returns id
update aetherflow.replays r
set state = 'cancelled', ended_at = now()
where r.id = $1 and r.state = 'running'
returning r.id
