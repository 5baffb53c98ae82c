-- secrets_by_key: how many secrets, headers and certificates each key seals; an empty one for what is not sealed.
-- returns key, secrets
select case when starts_with(k.value, 'sealed:1:') then split_part(k.value, ':', 3) else '' end as key,
       count(*)::integer as secrets
from (
    select s.secret as value from aetherflow.secrets s
    union all
    select h.value from aetherflow.headers h
    union all
    select c.pem from aetherflow.certificates c
) k
group by 1
order by 1
