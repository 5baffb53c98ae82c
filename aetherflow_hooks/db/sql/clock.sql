-- clock: what time it is.
-- returns now
select now() as now
