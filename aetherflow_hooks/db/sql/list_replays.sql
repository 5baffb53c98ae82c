-- list_replays: replays, the newest first; null as $1 stands for every one.
--   $1 id text
--   $2 tenant text
--   $3 before text
--   $4 rows_max bigint
-- returns id, state, tenant, endpoint_id, pattern, since, until, only_failed, rate_per_second, made, created_at, ended_at
select r.id, r.state, r.tenant, r.endpoint_id, r.pattern, r.since, r.until, r.only_failed, r.rate_per_second, r.made,
       r.created_at, r.ended_at
from aetherflow.replays r
where ($1::text is null or r.id = $1) and ($2::text is null or r.tenant = $2)
  and ($3::text is null or (r.created_at, r.id) < (select b.created_at, b.id from aetherflow.replays b where b.id = $3 and ($2::text is null or b.tenant = $2)))
order by r.created_at desc, r.id desc
limit $4
