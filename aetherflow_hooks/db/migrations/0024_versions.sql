-- Versions: endpoints get the data of a type as it looked before it was changed.

create table aetherflow.payload_versions (
    type        text collate "C" not null check (type ~ '^[A-Za-z0-9_.-]{1,128}$'),
    version     text collate "C" not null check (version ~ '^[A-Za-z0-9_.-]{1,64}$'),
    expression  text not null,
    description text not null default '',
    created_at  timestamptz not null default clock_timestamp(),
    primary key (type, version)
);
comment on table aetherflow.payload_versions is
    'How the data of a type looked up to a version. A row is added and deleted, and never changed.';
comment on column aetherflow.payload_versions.type is 'The event type.';
comment on column aetherflow.payload_versions.version is 'The last version that looked so; versions are in the order of their names, as dates are.';
comment on column aetherflow.payload_versions.expression is
    'What makes this version of `data` as the next version has it, or else as it is emitted: SQL as Postgres wrote it down, pure. It is run, so whoever may add a row may run it.';
comment on column aetherflow.payload_versions.description is 'What was changed after it, for people.';
comment on column aetherflow.payload_versions.created_at is 'When it was registered.';
comment on index aetherflow.payload_versions_pkey is 'The versions of a type in their order.';

alter table aetherflow.endpoints add column payload_version text collate "C"
    check (payload_version ~ '^[A-Za-z0-9_.-]{1,64}$');
comment on column aetherflow.endpoints.payload_version is
    'It gets data as this version had it; null: as it is emitted.';

-- Postgres itself finds out whether an expression is pure, for it must be so to generate a column: no function
-- that looks at anything but its arguments, no subquery, no other table, one value. The text has been found to
-- have balanced brackets and quotes, no comment and no semicolon, so that it ends where it should; that nothing
-- else has come of it is looked at once more.
create function aetherflow.read_expression(written text) returns text
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    trial regclass;
    found text;
begin
    begin
        execute 'create temporary table version_trial (data jsonb, made jsonb generated always as (' || written
            || ') stored) on commit drop';
    exception
        when insufficient_privilege or read_only_sql_transaction or object_not_in_prerequisite_state then
            raise;
        when others then
            raise exception using errcode = 'invalid_parameter_value', message = format(
                'the expression is refused: %s', sqlerrm || case when sqlerrm like '%not immutable%' then
                    '; of functions only those that always give the same for the same can be used: jsonb_set, jsonb_object,'
                    ' ||, - and casts of text and numbers, and not jsonb_build_object, to_jsonb or now' else '' end);
    end;
    trial := 'pg_temp.version_trial'::regclass;
    if (select array_agg(format('%s %s %s', a.attname, a.atttypid::regtype, a.attgenerated) order by a.attnum)
        from pg_attribute a where a.attrelid = trial and a.attnum > 0) <> array['data jsonb ', 'made jsonb s']
        or (select count(*) from pg_attrdef d where d.adrelid = trial) <> 1
        or exists (select from pg_constraint c where c.conrelid = trial)
        or exists (select from pg_index i where i.indrelid = trial)
        or exists (select from pg_inherits i where trial in (i.inhrelid, i.inhparent))
        or exists (select from pg_trigger t where t.tgrelid = trial)
    then
        raise exception using errcode = 'invalid_parameter_value', message = 'the expression is refused: it is more than that';
    end if;
    -- What Postgres comes with is pinned, and no dependency on it is kept.
    if exists (
        select from pg_depend d
        where (d.classid, d.objid) in (
                select 'pg_attrdef'::regclass, a.oid from pg_attrdef a where a.adrelid = trial
                union all select 'pg_class'::regclass, trial)
          and (d.classid <> 'pg_class'::regclass or d.objsubid <> 0)
          and (d.refclassid, d.refobjid) <> ('pg_class'::regclass, trial))
    then
        raise exception using errcode = 'invalid_parameter_value', message =
            'the expression is refused: only functions, operators, types and collations that Postgres comes with can be used, '
            'since others may become different';
    end if;
    select pg_get_expr(d.adbin, d.adrelid) into strict found from pg_attrdef d where d.adrelid = trial;
    drop table pg_temp.version_trial;
    return found;
end
$$;
comment on function aetherflow.read_expression(text) is
    'Give an expression over `data` as Postgres writes it down, if it is pure; whoever calls it has looked at its brackets.';

-- An error's own words may tell of the data, and where `problem` is kept they must not. A statement that is
-- cancelled is no error of the data, and not caught.
create function aetherflow.make_version(of_type text, data text, pinned text, out made text, out problem text, out detail text)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    step record;
    shape jsonb;
    doing text;
begin
    made := data;
    for step in
        select v.version, v.expression from aetherflow.payload_versions v
        where data is not null and v.type = of_type and v.version >= pinned collate "C"
        order by v.version desc
    loop
        if shape is null then
            doing := 'jsonb cannot hold it';
            shape := data::jsonb;
        end if;
        doing := format('the expression of %s fails', step.version);
        execute 'select (' || step.expression || ') from (select $1 as data) as event' into shape using shape;
        if jsonb_typeof(shape) is distinct from 'object' then
            doing := format('the expression of %s gives %s and not an object', step.version,
                            coalesce(jsonb_typeof(shape), 'nothing'));
            problem := format('the data cannot be made into version %s: %s', pinned, doing);
            made := null;
            return;
        end if;
    end loop;
    -- A few characters stand for very many, which Postgres would write out: up to 131,072 before the point and
    -- 16,383 behind it, of which all may be zeros.
    if shape is not null and data ~ '[eE][+-]?[0-9]{3}' and (
        jsonb_path_exists(
            shape, '$.** ? (@.type() == "number" && (@ > 1e300 || @ < -1e300 || (@ != 0 && @ < 1e-300 && @ > -1e-300)))')
        or regexp_count(data, '[0-9.][eE][+-]?[0-9]{3,}\s*[],}]') > 100
    ) then
        problem := format('the data cannot be made into version %s: it has numbers of over 300 digits', pinned);
        made := null;
    elsif shape is not null then
        made := shape::text;
        if octet_length(made) > 16777216 then
            problem := format('the data cannot be made into version %s: it would be over 16 MiB', pinned);
            made := null;
        end if;
    end if;
exception
    when transaction_rollback or lock_not_available or operator_intervention or disk_full then
        raise;  -- these are no fault of the data
    when others then
        problem := format('the data cannot be made into version %s: %s (%s)', pinned, doing, sqlstate);
        detail := sqlerrm;
        made := null;
end
$$;
comment on function aetherflow.make_version(text, text, text) is
    'Give data of a type as a version has it, or why that cannot be: `problem` tells nothing of the data, `detail` may. Data that no version tells of stays as it is.';

revoke execute on function aetherflow.read_expression, aetherflow.make_version from public;
insert into aetherflow.rights (role, object, privileges) values
    ('engine', 'payload_versions', 'select, insert, delete'),
    ('read', 'payload_versions', 'select');
select aetherflow.apply_rights();
