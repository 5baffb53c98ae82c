-- write_tallies: write what an engine has counted, over what it wrote of the same before.
--   $1 shards smallint[]
--   $2 subjects text[]
--   $3 starts_ats timestamptz[]
--   $4 parts bigint[]
--   $5 attempts integer[]
--   $6 delivered integer[]
--   $7 answered_429s integer[]
--   $8 answered_4xxs integer[]
--   $9 answered_5xxs integer[]
--   $10 answered_others integer[]
--   $11 timed_outs integer[]
--   $12 not_reacheds integer[]
--   $13 blockeds integer[]
--   $14 lates integer[]
--   $15 buckets text[]
--   $16 counts text[]
-- returns rows
--
-- A part is one engine's alone, and holds all that it has counted of that minute and not what is new:
-- so it can be written twice. One that was cut off and is carried out after all, behind a later one,
-- holds less and changes nothing. The arrays of a row come as text, since they differ in length.
with written as (
    insert into aetherflow.tallies (shard, span, starts_at, part, subject, attempts, delivered, answered_429,
                                    answered_4xx, answered_5xx, answered_other, timed_out, not_reached, blocked,
                                    late, buckets, counts)
    select r.shard, 60, r.starts_at, r.part, r.subject, r.attempts, r.delivered, r.answered_429, r.answered_4xx,
           r.answered_5xx, r.answered_other, r.timed_out, r.not_reached, r.blocked, r.late,
           r.buckets::smallint[], r.counts::integer[]
    from unnest(
        $1::smallint[], $2::text[], $3::timestamptz[], $4::bigint[], $5::integer[], $6::integer[], $7::integer[],
        $8::integer[], $9::integer[], $10::integer[], $11::integer[], $12::integer[], $13::integer[], $14::integer[],
        $15::text[], $16::text[]
    ) as r (shard, subject, starts_at, part, attempts, delivered, answered_429, answered_4xx, answered_5xx,
            answered_other, timed_out, not_reached, blocked, late, buckets, counts)
    on conflict (shard, subject, starts_at, span, part) do update
    set attempts = excluded.attempts, delivered = excluded.delivered, answered_429 = excluded.answered_429,
        answered_4xx = excluded.answered_4xx, answered_5xx = excluded.answered_5xx,
        answered_other = excluded.answered_other, timed_out = excluded.timed_out,
        not_reached = excluded.not_reached, blocked = excluded.blocked, late = excluded.late,
        buckets = excluded.buckets, counts = excluded.counts
    where tallies.attempts + tallies.late < excluded.attempts + excluded.late
    returning 1
)
select count(*)::integer as rows from written
