-- keep_answer: keep what is answered to a request with an idempotency key.
--   $1 token_id text
--   $2 key text
--   $3 answer text
-- returns key
update aetherflow.repeats r set answer = $3 where r.token_id = $1 and r.key = $2
returning r.key
