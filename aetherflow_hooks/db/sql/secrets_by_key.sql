-- secrets_by_key: how many secrets each key seals; an empty one for those that are not sealed.
-- returns key, secrets
select case when starts_with(k.secret, 'sealed:1:') then split_part(k.secret, ':', 3) else '' end as key,
       count(*)::integer as secrets
from aetherflow.secrets k
group by 1
order by 1
