-- examine_settings: how Postgres is set up for us, and how many connections it has left.
-- returns name, value
select s.name, s.setting as value from pg_settings s
where s.name in ('autovacuum', 'default_transaction_read_only', 'fsync', 'full_page_writes', 'max_connections',
                 'session_replication_role', 'synchronous_commit', 'track_counts')
union all
select 'in_recovery', pg_is_in_recovery()::text
union all
select 'connections', count(*)::text from pg_stat_activity a where a.backend_type = 'client backend'
