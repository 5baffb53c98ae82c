-- set_options: set options of Postgres until the transaction ends.
--   $1 options jsonb
-- returns options
select count(set_config(o.key, o.value, true)) as options from jsonb_each_text($1) o
