-- read_filter: give a filter as Postgres writes it.
--   $1 written text
-- returns read_filter
--
-- Refused is what Postgres cannot read; whether it is of the language of filters is not asked.
select aetherflow.read_filter($1)
