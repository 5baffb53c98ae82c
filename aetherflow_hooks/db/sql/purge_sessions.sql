-- purge_sessions: forget sessions that open nothing any more.
-- returns id
delete from aetherflow.sessions s where s.expires_at < now()
returning s.id
