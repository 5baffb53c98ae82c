-- read_expression: give an expression as Postgres writes it down, if it is pure.
--   $1 written text
-- returns read_expression
--
-- Its brackets and quotes have been looked at before.
select aetherflow.read_expression($1)
