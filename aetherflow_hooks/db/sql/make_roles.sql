-- make_roles: make roles for who emits, delivers and looks on; give their names.
--   $1 row_security boolean
-- returns role
select unnest(aetherflow.make_roles($1)) as role
