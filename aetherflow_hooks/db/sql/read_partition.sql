-- read_partition: rows of a day's table as lines of JSON, from one block up to another.
--   $1 name text
--   $2 first_block bigint
--   $3 end_block bigint
-- returns line
select line from aetherflow.partition_lines($1::text, $2, $3) as line
