-- emit: write an event as part of the caller's transaction.
--   $1 type text
--   $2 data text
--   $3 tenant text
--   $4 idempotency_key text
--   $5 deliver_at timestamptz
--   $6 expires_at timestamptz
--   $7 ordering_key text
--   $8 channels text[]
--   $9 traceparent text
-- returns emit
--
-- The place in a trace holds for the rest of the transaction, unless the next event tells another.
select aetherflow.emit($1::text, $2::text, $3::text, $4::text, $5::timestamptz, $6::timestamptz, $7::text,
                       $8::text[]) as emit
from (select $9::text is null or set_config('aetherflow' || '.traceparent', $9::text, true) <> '' as is_told offset 0) t
where t.is_told
