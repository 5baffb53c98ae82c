-- claim_repeat: be the first to use an idempotency key, or wait for whoever is; no row: it was used.
--   $1 token_id text
--   $2 key text
--   $3 fingerprint bytea
-- returns key
insert into aetherflow.repeats (token_id, key, fingerprint)
values ($1, $2, $3)
on conflict do nothing
returning key
