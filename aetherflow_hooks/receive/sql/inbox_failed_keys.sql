-- Each key is a lock that is held meanwhile, of which a server has only so many.
select distinct key
from aetherflow_inbox
where failed_at <= $1::timestamptz and key is not null
limit $2::int
