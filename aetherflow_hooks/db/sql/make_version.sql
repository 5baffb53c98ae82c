-- make_version: give data of a type as a version has it, or say why that cannot be.
--   $1 type text
--   $2 data text
--   $3 version text
-- returns made, problem, detail
select m.made, m.problem, m.detail from aetherflow.make_version($1, $2, $3) m
