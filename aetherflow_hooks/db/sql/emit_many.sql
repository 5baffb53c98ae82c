-- emit_many: write events as part of the caller's transaction, in their order; give their ids.
--   $1 types text[]
--   $2 data text[]
--   $3 tenants text[]
--   $4 idempotency_keys text[]
--   $5 deliver_at timestamptz[]
--   $6 expires_at timestamptz[]
--   $7 ordering_keys text[]
--   $8 channels text[]
--   $9 traceparent text
-- returns emit
--
-- The channels of an event are joined by commas: an array of arrays has them all of one length.
select aetherflow.emit(given.type, given.data, given.tenant, given.idempotency_key, given.deliver_at,
                       given.expires_at, given.ordering_key, string_to_array(given.channels, ',')) as emit
from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::text[],
            $8::text[])
     with ordinality as given(type, data, tenant, idempotency_key, deliver_at, expires_at, ordering_key, channels,
                              place)
cross join (
    select $9::text is null or set_config('aetherflow' || '.traceparent', $9::text, true) <> '' as is_told offset 0
) t
where t.is_told
order by given.place
