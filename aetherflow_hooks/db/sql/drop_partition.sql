-- drop_partition: drop a day that is past, where its tables belong to somebody else; false: not now.
--   $1 name text
-- returns drop_partition
select aetherflow.drop_partition($1)
