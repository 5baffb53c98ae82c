-- Watching, after a reading: a trigger with columns comes through a dump, a tenant of null is refused, a column that was
-- renamed or dropped is told, JSON that no function takes apart is in nobody's way unless it is told, no setting of a
-- session shows, and a partition is watched once. What was watched before goes on as it was, until it is watched again.
--
-- tell_change runs as whoever writes: see 0025.
create or replace function aetherflow.tell_change() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
set timezone = 'UTC' set datestyle = 'ISO' set intervalstyle = 'iso_8601' set bytea_output = 'hex' set extra_float_digits = 1
as $$
declare
    whole json;    -- the row as it is now, or was last
    told json;     -- the columns of it that are told
    before json;   -- those of them that were otherwise
    was json;      -- the row as it was before an update
    named text[];  -- the columns that have to be there
    narrow text;
begin
    whole := case when tg_op = 'DELETE' then row_to_json(old) else row_to_json(new) end;
    was := case when tg_op = 'UPDATE' then row_to_json(old) end;
    named := array_remove(tg_argv[2:], '');
    -- A column of json can hold what no function takes apart; where it is not told, it is not in the way.
    if tg_nargs > 4 and (strpos(whole::text, '\u') > 0 or strpos(was::text, '\u') > 0) then
        select 'select row_to_json(t) from (select ' || string_agg(distinct format('($1).%I', n.name), ', ') || ') as t'
        into narrow
        from unnest(named) as n (name);
        if tg_op = 'DELETE' then
            execute narrow into whole using old;
        else
            execute narrow into whole using new;
        end if;
        if tg_op = 'UPDATE' then
            execute narrow into was using old;
        end if;
    end if;
    -- Whoever renames or drops one is told: silently it would be another tenant's event, or none of the column.
    if cardinality(named) > 0 and exists (
        select from unnest(named) as n (name) where n.name not in (select json_object_keys(whole))
    ) then
        raise exception using errcode = 'undefined_column', message = format(
            'aetherflow.watch: %I.%I has no more all of the columns %s: watch it again', tg_table_schema, tg_table_name,
            array_to_string(named, ', '));
    end if;
    told := whole;
    if tg_nargs > 4 then
        select '{' || string_agg(to_json(e.key) || ':' || e.value, ',') || '}' into told
        from json_each(whole) as e
        where e.key = any (tg_argv[4:]);
    end if;
    if tg_op = 'UPDATE' then
        select '{' || string_agg(to_json(o.key) || ':' || o.value, ',') || '}' into before
        from json_each(was) as o
        join json_each(told) as n on n.key = o.key
        where n.value::text <> o.value::text;
    end if;
    perform aetherflow.emit(
        tg_argv[0] || case tg_op when 'INSERT' then '.created' when 'UPDATE' then '.updated' else '.deleted' end,
        '{"row":' || told || case when tg_op = 'UPDATE' then ',"old":' || coalesce(before, '{}') else '' end || '}',
        tenant => case when tg_argv[2] = '' then tg_argv[1] else coalesce(whole ->> tg_argv[2], '') end,
        ordering_key => nullif(whole ->> tg_argv[3], ''));
    return null;
end
$$;
comment on function aetherflow.tell_change() is
    'Emit an event of a row that was written: {"row":…}, and of an update {"row":…,"old":…}. Arguments: the beginning of the type, the tenant, the columns that name the tenant and the ordering key, and those that are told.';

create or replace function aetherflow.watch(
    watched regclass,
    type text default null,
    operations text[] default '{insert,update,delete}',
    columns text[] default null,
    condition text default null,
    tenant text default '',
    tenant_column text default null,
    ordering_column text default null
) returns text[]
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    own_schema constant name := (
        select n.nspname from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        where p.oid = 'aetherflow.shard_of(text)'::regprocedure);
    own_trigger constant oid := 'aetherflow.tell_change()'::regprocedure;
    table_name name;
    kind "char";
    schema_name name;
    problem text;
    operation text;
    changed text := 'old.* *<> new.*';
    types text[] := '{}';
begin
    select c.relname, c.relkind, n.nspname into table_name, kind, schema_name
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.oid = watched;
    type := coalesce(type, table_name);
    condition := nullif(btrim(condition), '');
    problem := case
        when kind is null or kind not in ('r', 'p', 'f') or schema_name = own_schema
            then format('%s is not a table of an application', coalesce(watched::text, 'null'))
        when type !~ '^[A-Za-z0-9_.-]{1,120}$'
            then format('the types would begin with %L, and that is not 1 to 120 characters of A-Z a-z 0-9 _ . -; '
                        'name another type', type)
        when (cardinality(operations) > 0 and operations <@ '{insert,update,delete}') is not true
            then 'operations are some of insert, update and delete'
        when cardinality(columns) = 0 or array_position(columns, null) is not null
            then 'columns are names; leave them out to tell all'
        when (length(tenant) <= 256 and tenant !~ '[[:cntrl:]]') is not true
            then 'tenant is null, over 256 characters or holds a control character'
    end;
    if problem is null then
        select format('%s has no column %s that a trigger can read', watched,
                      string_agg(format('%I', w.name), ', ' order by w.place)) into problem
        from unnest(columns || tenant_column || ordering_column) with ordinality as w (name, place)
        where w.name is not null and not exists (
            select from pg_attribute a
            where a.attrelid = watched and a.attname = w.name and a.attnum > 0 and not a.attisdropped
              and a.attgenerated <> 'v')
        having count(*) > 0;
    end if;
    if problem is null and columns is null then
        select format('name the columns of %s: a trigger cannot read %s, which is made when it is asked for', watched,
                      string_agg(format('%I', a.attname), ', ')) into problem
        from pg_attribute a
        where a.attrelid = watched and a.attgenerated = 'v' and not a.attisdropped
        having count(*) > 0;
    end if;
    if problem is null then
        select format('%s is watched by itself: unwatch it before', t.tgrelid::regclass) into problem
        from pg_trigger t
        where t.tgfoid = own_trigger and t.tgparentid = 0 and t.tgrelid <> watched and t.tgrelid in (
            select p.relid from pg_partition_tree(watched) as p
            union all
            select a.relid from pg_partition_ancestors(watched) as a (relid))
        limit 1;
    end if;
    if problem is not null then
        raise exception using errcode = 'invalid_parameter_value', message = 'aetherflow.watch: ' || problem;
    end if;
    if columns is not null then
        -- An operator between rows would be read otherwise when a dump is restored.
        select format('record_image_ne(row(%s), row(%s))', string_agg(format('old.%I', c.name), ', '),
                      string_agg(format('new.%I', c.name), ', ')) into changed
        from unnest(columns) as c (name);
    end if;
    foreach operation in array operations loop
        execute format(
            'create or replace trigger %I after %s on %s for each row %s execute function aetherflow.tell_change(%s)',
            left(own_schema, 40) || '_watch_' || operation, operation, watched,
            case when operation = 'update' then format('when (%s)', concat_ws(' and ', changed, '(' || condition || E'\n)'))
                 when condition is not null then format(E'when (%s\n)', condition) else '' end,
            (select string_agg(quote_literal(given.argument), ', ' order by given.place)
             from unnest(array[type, tenant, coalesce(tenant_column, ''), coalesce(ordering_column, '')] || columns)
                 with ordinality as given (argument, place)));
        types := types || (type || case operation when 'insert' then '.created' when 'update' then '.updated' else '.deleted' end);
    end loop;
    return types;
end
$$;
comment on function aetherflow.watch(regclass, text, text[], text[], text, text, text, text) is
    'Emit an event for each row of a table that is inserted, updated otherwise than it was, or deleted; gives the types. condition is SQL on old and new, with what is not of Postgres itself named in full. Again: changes how, for the operations that are named.';

create or replace function aetherflow.unwatch(watched regclass, operations text[] default '{insert,update,delete}') returns integer
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    found_trigger name;
    count integer := 0;
begin
    for found_trigger in
        select t.tgname from pg_trigger t
        where t.tgrelid = watched and t.tgfoid = 'aetherflow.tell_change()'::regprocedure and t.tgparentid = 0
          -- which operations a trigger is for is a bit each
          and case when t.tgtype & 4 <> 0 then 'insert' when t.tgtype & 8 <> 0 then 'delete' else 'update' end
              = any (operations)
    loop
        execute format('drop trigger %I on %s', found_trigger, watched);
        count := count + 1;
    end loop;
    return count;
end
$$;
comment on function aetherflow.unwatch(regclass, text[]) is 'Tell no more of a table; gives how many operations that were.';
