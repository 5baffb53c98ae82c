-- note_backlog: let emit know whether more waits than may.
--   $1 backlog_max bigint
-- returns is_full
--
-- 0 is no limit. Changes the row only where that is news: every emit reads it.
with found as (
    select $1::bigint > 0 and (
        select count(*) from (
            (select from aetherflow.outbox limit $1 + 1) union all (select from aetherflow.deliveries limit $1 + 1)
        ) w
    ) > $1 as is_full
)
update aetherflow.control c
set backlog_is_full = f.is_full
from found f
where c.backlog_is_full <> f.is_full
returning c.backlog_is_full as is_full
