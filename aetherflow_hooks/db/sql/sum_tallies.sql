-- sum_tallies: what was counted of some subjects in a time, by the minute, added up.
--   $1 subjects text[]
--   $2 since timestamptz
--   $3 until timestamptz
-- returns subject, attempts, delivered, answered_429, answered_4xx, answered_5xx, answered_other, timed_out, not_reached, blocked, late, buckets, counts
-- walks tallies_pkey
--
-- A row for each subject, with zeros where nothing was counted. Minutes are chosen by what they are not, so
-- that no index by their age is taken for a good one.
with found as materialized (
    select k.subject, t.attempts, t.delivered, t.answered_429, t.answered_4xx, t.answered_5xx, t.answered_other,
           t.timed_out, t.not_reached, t.blocked, t.late, t.buckets, t.counts
    from unnest($1::text[]) as k (subject)
    cross join lateral generate_series(
        case when k.subject like 'ep\_%' then aetherflow.shard_of(k.subject) else 0 end,
        case when k.subject like 'ep\_%' then aetherflow.shard_of(k.subject) else aetherflow.shard_count() - 1 end
    ) as s (shard)
    cross join lateral (
        select t.* from aetherflow.tallies t
        where t.shard = s.shard::smallint and t.subject = k.subject and t.starts_at >= $2 and t.starts_at < $3
          and t.span <> 3600
        order by t.starts_at
    ) t
), summed as (
    select f.subject, sum(f.attempts) as attempts, sum(f.delivered) as delivered,
           sum(f.answered_429) as answered_429, sum(f.answered_4xx) as answered_4xx,
           sum(f.answered_5xx) as answered_5xx, sum(f.answered_other) as answered_other,
           sum(f.timed_out) as timed_out, sum(f.not_reached) as not_reached, sum(f.blocked) as blocked,
           sum(f.late) as late
    from found f
    group by f.subject
), histograms as (
    select b.subject, array_agg(b.bucket) as buckets, array_agg(b.count) as counts
    from (
        select f.subject, u.bucket, sum(u.count)::bigint as count
        from found f
        cross join lateral unnest(f.buckets, f.counts) as u (bucket, count)
        group by f.subject, u.bucket
    ) b
    group by b.subject
)
select k.subject, coalesce(s.attempts, 0) as attempts, coalesce(s.delivered, 0) as delivered,
       coalesce(s.answered_429, 0) as answered_429, coalesce(s.answered_4xx, 0) as answered_4xx,
       coalesce(s.answered_5xx, 0) as answered_5xx, coalesce(s.answered_other, 0) as answered_other,
       coalesce(s.timed_out, 0) as timed_out, coalesce(s.not_reached, 0) as not_reached,
       coalesce(s.blocked, 0) as blocked, coalesce(s.late, 0) as late,
       coalesce(h.buckets, '{}') as buckets, coalesce(h.counts, '{}') as counts
from unnest($1::text[]) as k (subject)
left join summed s on s.subject = k.subject
left join histograms h on h.subject = k.subject
