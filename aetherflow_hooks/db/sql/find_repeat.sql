-- find_repeat: what was answered to a request with an idempotency key.
--   $1 token_id text
--   $2 key text
-- returns fingerprint, answer
select r.fingerprint, r.answer from aetherflow.repeats r where r.token_id = $1 and r.key = $2
