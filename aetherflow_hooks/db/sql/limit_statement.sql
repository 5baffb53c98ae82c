-- limit_statement: end each statement of this transaction that takes longer, or waits for a lock for half as long.
--   $1 milliseconds integer
-- returns set_config
--
-- So what took too long did not just wait.
select set_config(name, value::text, true) as set_config
from (values ('lock_timeout', $1::integer / 2), ('statement_timeout', $1::integer)) as option (name, value)
