-- sample_secrets: of each key, some of what it seals.
--   $1 samples_max bigint
-- returns key, endpoint_id, header, value
select s.key, s.endpoint_id, s.header, s.value
from (
    select k.*, row_number() over (partition by k.key order by k.endpoint_id) as place
    from (
        select split_part(s.secret, ':', 3) as key, s.endpoint_id, null as header, s.secret as value
        from aetherflow.secrets s where starts_with(s.secret, 'sealed:1:')
        union all
        select split_part(h.value, ':', 3), h.endpoint_id, h.name, h.value
        from aetherflow.headers h where starts_with(h.value, 'sealed:1:')
        union all
        select split_part(c.pem, ':', 3), c.endpoint_id, ':certificate', c.pem
        from aetherflow.certificates c where starts_with(c.pem, 'sealed:1:')
    ) k
) s
where s.place <= $1
