-- limit_statement: end each statement of this transaction that takes longer.
--   $1 milliseconds integer
-- returns set_config
select set_config('statement_timeout', $1::integer::text, true)
