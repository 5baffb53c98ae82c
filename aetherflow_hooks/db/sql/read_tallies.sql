-- read_tallies: what was counted of some subjects in a time, a row per minute or hour and part.
--   $1 subjects text[]
--   $2 since timestamptz
--   $3 until timestamptz
--   $4 with_hours boolean
-- returns subject, starts_at, attempts, delivered, answered_429, answered_4xx, answered_5xx, answered_other, timed_out, not_reached, blocked, late, buckets, counts
-- walks tallies_pkey
--
-- Of a tenant and of all the rows lie in any shard, so each is looked into; an endpoint's are in its own.
select k.subject, t.starts_at, t.attempts, t.delivered, t.answered_429, t.answered_4xx, t.answered_5xx,
       t.answered_other, t.timed_out, t.not_reached, t.blocked, t.late, t.buckets, t.counts
from unnest($1::text[]) as k (subject)
cross join lateral generate_series(
    case when k.subject like 'ep\_%' then aetherflow.shard_of(k.subject) else 0 end,
    case when k.subject like 'ep\_%' then aetherflow.shard_of(k.subject) else aetherflow.shard_count() - 1 end
) as s (shard)
cross join lateral (
    select t.* from aetherflow.tallies t
    where t.shard = s.shard::smallint and t.subject = k.subject and t.starts_at >= $2 and t.starts_at < $3
      and (t.span = 60 or $4)
    order by t.starts_at
) t
