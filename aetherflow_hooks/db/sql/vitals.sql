-- vitals: how much there is, and how Postgres gets on with it.
--   $1 counted_max bigint
--   $2 seen_seconds double precision
-- returns measure, name, value
--
-- No more than that many rows are counted one by one, along an index, since a table keeps the pages
-- of what has left; beyond that it is what Postgres estimates. A transaction keeps vacuum from its
-- work by its snapshot or its own changes, in this database alone; of others' transactions only a
-- member of pg_read_all_stats sees when they began.
with tables as materialized (
    select regexp_replace(c.relname, '_[0-9]{8}$', '') as name,
           sum(pg_stat_get_live_tuples(c.oid))::double precision as live,
           sum(pg_stat_get_dead_tuples(c.oid))::double precision as dead,
           sum(pg_total_relation_size(c.oid))::double precision as bytes
    from pg_class c
    where c.relkind = 'r'
      and c.relnamespace = (select p.relnamespace from pg_class p where p.oid = 'aetherflow.events'::regclass)
    group by 1
), counted (name, counted) as materialized (
    select 'outbox', count(*) from (
        select from aetherflow.outbox o order by o.shard, o.begun, o.due_at, o.event_id limit $1
    ) o
    union all
    select 'deliveries', count(*) from (
        select from aetherflow.deliveries d order by d.shard, d.endpoint_id, d.event_id limit $1
    ) d
    union all
    select 'dead', count(*) from (
        select from aetherflow.dead d order by d.shard, d.endpoint_id, d.event_id limit $1
    ) d
)
select 'table_rows' as measure, t.name, t.live as value from tables t
union all
select 'table_dead_rows', t.name, t.dead from tables t
union all
select 'table_bytes', t.name, t.bytes from tables t
union all
select 'rows', c.name, case when c.counted < $1 then c.counted else greatest(c.counted, t.live) end
from counted c
join tables t using (name)
union all
select 'outbox_oldest_due_seconds', '', greatest(0, date_part('epoch', now() - min(first.due_at)))
from generate_series(0, aetherflow.shard_count() - 1) as s (shard)
cross join (values (false), (true)) as way (begun)
cross join lateral (
    select o.due_at from aetherflow.outbox o
    where o.shard = s.shard::smallint and o.begun = way.begun
    order by o.due_at
    limit 1
) first
union all
select 'engines', '', count(*) from aetherflow.engines e where e.seen_at > now() - make_interval(secs => $2)
union all
select 'backlog_full', '', c.backlog_is_full::integer from aetherflow.control c
union all
select 'oldest_transaction_seconds', '', coalesce(date_part('epoch', now() - min(t.began_at)), 0)
from (
    select a.xact_start as began_at from pg_stat_activity a
    where a.pid <> pg_backend_pid() and (a.backend_xmin is not null or a.backend_xid is not null)
      and a.backend_type <> 'autovacuum worker' and (a.datname = current_database() or a.datname is null)
    union all
    select x.prepared from pg_prepared_xacts x where x.database = current_database()
) t
union all
select 'partitions_ahead_days', '', min(days.ahead)
from (
    select floor(date_part('epoch', max(to_timestamp(right(c.relname, 8) || ' 00+00', 'YYYYMMDD HH24TZH'))
                                    - now()) / 86400) + 1 as ahead
    from pg_class c
    join pg_inherits i on i.inhrelid = c.oid
    where i.inhparent in ('aetherflow.events'::regclass, 'aetherflow.attempts'::regclass)
    group by i.inhparent
) days
union all
select 'endpoints_failing', '', count(*) from aetherflow.endpoints e
where e.state = 'active' and e.failing_since is not null
