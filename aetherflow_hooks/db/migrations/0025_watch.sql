-- Watching: a trigger that tells of each row of a table that is written, for applications whose code does not.

-- It runs as whoever writes, who has to be able to emit: with the rights of our own schema's owner it would run
-- a cast to JSON that somebody else has made for a type of theirs.
create function aetherflow.tell_change() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp set timezone = 'UTC'
as $$
declare
    whole jsonb;   -- the row as it is now, or was last
    told jsonb;    -- the columns of it that are told
    before jsonb;  -- those of them that were otherwise
    data jsonb;
begin
    if tg_op = 'DELETE' then
        whole := to_jsonb(old);
    else
        whole := to_jsonb(new);
    end if;
    told := whole;
    if tg_nargs > 4 then
        select jsonb_object_agg(c.name, whole -> c.name) into told from unnest(tg_argv[4:]) as c (name);
    end if;
    data := jsonb_build_object('row', told);
    if tg_op = 'UPDATE' then
        select coalesce(jsonb_object_agg(o.key, o.value), '{}') into before
        from jsonb_each(to_jsonb(old)) as o
        where told ? o.key and told -> o.key is distinct from o.value;
        data := jsonb_build_object('row', told, 'old', before);
    end if;
    perform aetherflow.emit(
        tg_argv[0] || case tg_op when 'INSERT' then '.created' when 'UPDATE' then '.updated' else '.deleted' end,
        data::text,
        tenant => case when tg_argv[2] = '' then tg_argv[1] else coalesce(whole ->> tg_argv[2], '') end,
        ordering_key => nullif(whole ->> tg_argv[3], ''));
    return null;
end
$$;
comment on function aetherflow.tell_change() is
    'Emit an event of a row that was written: {"row": …}, and of an update {"row": …, "old": …}. Arguments: the beginning of the type, the tenant, the columns that name the tenant and the ordering key, and those that are told.';

create function aetherflow.watch(
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
    table_name name;
    kind "char";
    schema_name name;
    missing text;
    operation text;
    changed text := 'old.* *<> new.*';
    types text[] := '{}';
begin
    select c.relname, c.relkind, n.nspname into table_name, kind, schema_name
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.oid = watched;
    type := coalesce(type, table_name);
    if kind is null or kind not in ('r', 'p', 'f') or schema_name = own_schema then
        raise exception using errcode = 'invalid_parameter_value', message = format(
            'aetherflow.watch: %s is not a table of an application', coalesce(watched::text, 'null'));
    end if;
    if type !~ '^[A-Za-z0-9_.-]{1,120}$' then
        raise exception using errcode = 'invalid_parameter_value', message = format(
            'aetherflow.watch: the types would begin with %L, and that is not 1 to 120 characters of A-Z a-z 0-9 _ . -; name another type',
            type);
    end if;
    if cardinality(operations) = 0 or not operations <@ '{insert,update,delete}' then
        raise exception using errcode = 'invalid_parameter_value',
            message = 'aetherflow.watch: operations are some of insert, update and delete';
    end if;
    if cardinality(columns) = 0 then
        raise exception using errcode = 'invalid_parameter_value',
            message = 'aetherflow.watch: there are no columns to tell; leave them out to tell all';
    end if;
    select string_agg(format('%I', w.name), ', ' order by w.place) into missing
    from unnest(columns || tenant_column || ordering_column) with ordinality as w (name, place)
    where w.name is not null and not exists (
        select from pg_attribute a
        where a.attrelid = watched and a.attname = w.name and a.attnum > 0 and not a.attisdropped);
    if missing is not null then
        raise exception using errcode = 'undefined_column',
            message = format('aetherflow.watch: %s has no column %s', watched, missing);
    end if;
    if columns is not null then
        select format('row(%s)::record *<> row(%s)::record', string_agg(format('old.%I', c.name), ', '),
                      string_agg(format('new.%I', c.name), ', ')) into changed
        from unnest(columns) as c (name);
    end if;
    foreach operation in array operations loop
        execute format(
            'create or replace trigger %I after %s on %s for each row %s execute function aetherflow.tell_change(%s)',
            own_schema || '_watch_' || operation, operation, watched,
            case when operation = 'update' then format('when (%s)', concat_ws(' and ', changed, '(' || condition || ')'))
                 when condition is not null then format('when (%s)', condition) else '' end,
            (select string_agg(quote_literal(given.argument), ', ' order by given.place)
             from unnest(array[type, tenant, coalesce(tenant_column, ''), coalesce(ordering_column, '')] || columns)
                 with ordinality as given (argument, place)));
        types := types || (type || case operation when 'insert' then '.created' when 'update' then '.updated' else '.deleted' end);
    end loop;
    return types;
end
$$;
comment on function aetherflow.watch(regclass, text, text[], text[], text, text, text, text) is
    'Emit an event for each row of a table that is inserted, updated otherwise than it was, or deleted; gives the types. condition is SQL on old and new, with names of other schemas in full. Again: changes how, for the operations that are named.';

create function aetherflow.unwatch(watched regclass, operations text[] default '{insert,update,delete}') returns integer
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    found_trigger name;
    count integer := 0;
begin
    for found_trigger in
        select t.tgname from pg_trigger t
        where t.tgrelid = watched and t.tgfoid = 'aetherflow.tell_change()'::regprocedure and t.tgparentid = 0
          and substring(t.tgname from '_watch_(.*)$') = any (operations)
    loop
        execute format('drop trigger %I on %s', found_trigger, watched);
        count := count + 1;
    end loop;
    return count;
end
$$;
comment on function aetherflow.unwatch(regclass, text[]) is 'Tell no more of a table; gives how many operations that were.';

revoke execute on function aetherflow.tell_change, aetherflow.watch, aetherflow.unwatch from public;

create or replace function aetherflow.grant_emit(role_name text) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    overload regprocedure;
begin
    execute format('grant usage on schema aetherflow to %I', role_name);
    for overload in
        select oid::regprocedure from pg_proc
        where proname in ('emit', 'schema_of', 'watch', 'unwatch', 'tell_change') and pronamespace = (
            select pronamespace from pg_proc where oid = 'aetherflow.shard_of(text)'::regprocedure)
    loop
        execute format('grant execute on function %s to %I', overload, role_name);
    end loop;
end
$$;
comment on function aetherflow.grant_emit(text) is
    'Let a role emit, also by watching tables of its own, and ask for the schemas of types, and nothing else.';

-- Who can emit can watch.
do $$
declare
    role_name name;
begin
    for role_name in
        select distinct r.rolname
        from pg_proc p
        cross join lateral aclexplode(p.proacl) acl
        join pg_roles r on r.oid = acl.grantee
        where p.proname = 'emit' and acl.grantee <> p.proowner and p.pronamespace = (
            select pronamespace from pg_proc where oid = 'aetherflow.shard_of(text)'::regprocedure)
    loop
        perform aetherflow.grant_emit(role_name);
    end loop;
end
$$;
select aetherflow.apply_rights();
