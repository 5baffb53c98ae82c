-- merge_tallies: turn old minutes of one shard into hours; give the number of minutes.
--   $1 shard smallint
--   $2 minutes_kept_hours integer
--   $3 batch_max bigint
-- returns minutes
-- walks tallies_age
--
-- A minute leaves in the statement that adds it to its hour, so it is counted once, whenever it came.
with old as materialized (
    select t.ctid as row_at from aetherflow.tallies t
    where t.shard = $1 and t.span = 60 and t.starts_at < now() - make_interval(hours => $2)
    order by t.starts_at
    limit $3
), gone as (
    delete from aetherflow.tallies t
    using old
    where t.shard = $1 and t.ctid = old.row_at
    returning date_trunc('hour', t.starts_at, 'UTC') as hour, t.*
), summed as (
    select g.subject, g.hour, sum(g.attempts) as attempts, sum(g.delivered) as delivered,
           sum(g.answered_429) as answered_429, sum(g.answered_4xx) as answered_4xx,
           sum(g.answered_5xx) as answered_5xx, sum(g.answered_other) as answered_other,
           sum(g.timed_out) as timed_out, sum(g.not_reached) as not_reached, sum(g.blocked) as blocked,
           sum(g.late) as late,
           string_agg(array_to_string(g.buckets, ','), ',') filter (where g.buckets <> '{}') as buckets,
           string_agg(array_to_string(g.counts, ','), ',') filter (where g.counts <> '{}') as counts
    from gone g
    group by g.subject, g.hour
), merged as (
    insert into aetherflow.tallies as t (
        shard, span, starts_at, part, subject, attempts, delivered, answered_429, answered_4xx, answered_5xx,
        answered_other, timed_out, not_reached, blocked, late, buckets, counts)
    select $1, 3600, s.hour, 0, s.subject, s.attempts, s.delivered, s.answered_429, s.answered_4xx, s.answered_5xx,
           s.answered_other, s.timed_out, s.not_reached, s.blocked, s.late, h.buckets, h.counts
    from summed s
    cross join lateral (
        select coalesce(array_agg(b.bucket order by b.bucket), '{}') as buckets,
               coalesce(array_agg(b.count order by b.bucket), '{}') as counts
        from (
            select u.bucket, sum(u.count)::integer as count
            from unnest(string_to_array(s.buckets, ',')::smallint[], string_to_array(s.counts, ',')::integer[])
                as u (bucket, count)
            group by u.bucket
        ) b
    ) h
    on conflict (shard, subject, starts_at, span, part) do update
    set attempts = t.attempts + excluded.attempts, delivered = t.delivered + excluded.delivered,
        answered_429 = t.answered_429 + excluded.answered_429, answered_4xx = t.answered_4xx + excluded.answered_4xx,
        answered_5xx = t.answered_5xx + excluded.answered_5xx,
        answered_other = t.answered_other + excluded.answered_other, timed_out = t.timed_out + excluded.timed_out,
        not_reached = t.not_reached + excluded.not_reached, blocked = t.blocked + excluded.blocked,
        late = t.late + excluded.late,
        (buckets, counts) = (
            select coalesce(array_agg(b.bucket order by b.bucket), '{}'), coalesce(array_agg(b.count order by b.bucket), '{}')
            from (
                select u.bucket, sum(u.count)::integer as count
                from unnest(t.buckets || excluded.buckets, t.counts || excluded.counts) as u (bucket, count)
                group by u.bucket
            ) b
        )
)
select count(*)::integer as minutes from gone
