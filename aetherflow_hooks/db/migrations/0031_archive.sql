-- A day's rows can be read one part after the other by whoever works here, though the tables of single days are the
-- owner's. By blocks, since that suits any table, and no part keeps a snapshot for long.

create function aetherflow.partition_lines(name text, first_block bigint, end_block bigint) returns setof text
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if (partition_lines.name ~ '^(events|attempts)_[0-9]{8}$') is not true then
        raise exception using errcode = 'invalid_parameter_value',
            message = 'aetherflow.partition_lines: this is no table of a day';
    end if;
    return query execute format(
        'select row_to_json(t)::text || E''\n'' from aetherflow.%I t where t.ctid >= %L and t.ctid < %L',
        partition_lines.name, format('(%s,0)', first_block), format('(%s,0)', end_block));
end
$$;
comment on function aetherflow.partition_lines(text, bigint, bigint) is
    'Give the rows of a day''s table as JSON, a line each, from one block up to another.';
revoke execute on function aetherflow.partition_lines(text, bigint, bigint) from public;
select aetherflow.apply_rights();
