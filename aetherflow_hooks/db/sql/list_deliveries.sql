-- list_deliveries: deliveries of any state, the newest events first; null leaves a filter out.
--   $1 state text
--   $2 endpoint_id text
--   $3 event_id text
--   $4 rows_max bigint
-- returns endpoint_id, event_id, state, attempts, due_at, reason
(
    select d.endpoint_id, d.event_id,
           case when d.leased_until > now() then 'leased' when d.due_at = 'infinity' then 'halted' else 'pending' end
           as state,
           d.attempt as attempts, nullif(d.due_at, 'infinity') as due_at, null::text as reason
    from aetherflow.deliveries d
    where ($1::text is null or $1 = case when d.leased_until > now() then 'leased'
                                         when d.due_at = 'infinity' then 'halted' else 'pending' end)
      and ($2::text is null or (d.shard = aetherflow.shard_of($2) and d.endpoint_id = $2))
      and ($3::text is null or d.event_id = $3)
    order by d.event_id desc, d.endpoint_id
    limit $4
)
union all
(
    select d.endpoint_id, d.event_id, 'dead', d.attempts, null, d.reason
    from aetherflow.dead d
    where ($1::text is null or $1 = 'dead')
      and ($2::text is null or (d.shard = aetherflow.shard_of($2) and d.endpoint_id = $2))
      and ($3::text is null or d.event_id = $3)
    order by d.event_id desc, d.endpoint_id
    limit $4
)
union all
(
    select a.endpoint_id, a.event_id, 'delivered', a.attempt, null, null
    from aetherflow.attempts a
    where a.verdict = 'delivered' and ($1::text is null or $1 = 'delivered')
      and ($2::text is null or (a.shard = aetherflow.shard_of($2) and a.endpoint_id = $2))
      and ($3::text is null or a.event_id = $3)
    order by a.event_id desc, a.endpoint_id
    limit $4
)
order by event_id desc, endpoint_id
limit $4
