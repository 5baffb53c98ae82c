-- Filters: endpoints that want only events whose data says so; and what applications note on endpoints.

alter table aetherflow.endpoints add column filter jsonpath;
comment on column aetherflow.endpoints.filter is 'A condition on the data of events: it gets those alone for which it is true; null: all that it wants by their type.';
alter table aetherflow.endpoints add column labels text[] collate "C" not null default '{}';
comment on column aetherflow.endpoints.labels is 'Words of the application''s, to find its endpoints by.';
alter table aetherflow.endpoints add column metadata json not null default '{}';
comment on column aetherflow.endpoints.metadata is 'An object of the application''s own, kept as it was given and never sent.';

create function aetherflow.read_filter(written text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
    return written::jsonpath::text;
exception
    when syntax_error or data_exception or statement_too_complex or feature_not_supported then
        raise exception using errcode = 'invalid_parameter_value', message = format(
            'the filter cannot be read: %s; it is a condition such as $.amount > 100 && $.status == "paid"', sqlerrm);
end
$$;
comment on function aetherflow.read_filter(text) is
    'Give a condition as Postgres writes it, each key quoted and each literal plain, whatever hand wrote it.';

-- What cannot be read is let through, since one event too many does less harm than one too few: data with
-- numbers or a nesting beyond jsonb; data of over 1 MiB or 100,000 commas, for much more than that could take
-- a filter seconds and Postgres hundreds of megabytes; and what other filters leave no time for. So no event
-- waits for ever, nor keeps others waiting for long.
create function aetherflow.let_through(data text, filters jsonpath[]) returns bit varying
language plpgsql parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    ends_at constant timestamptz := clock_timestamp() + interval '0.5 seconds';
    readable jsonb;
    filter jsonpath;
    bits text := '';
begin
    if octet_length(data) <= 100000
        or octet_length(data) <= 1048576 and octet_length(data) - octet_length(replace(data, ',', '')) <= 100000
    then
        begin
            readable := data::jsonb;
            foreach filter in array filters loop
                exit when clock_timestamp() > ends_at;
                if filter is null or jsonb_path_match(readable, filter, '{}', true) then
                    bits := bits || '1';
                else
                    bits := bits || '0';
                end if;
            end loop;
        exception
            when others then
                null;
        end;
    end if;
    return rpad(bits, cardinality(filters), '1')::varbit;
end
$$;
comment on function aetherflow.let_through(text, jsonpath[]) is
    'Which filters an event''s data passes, a bit for each; 1 also where there is none, or where data cannot be read.';
revoke execute on function aetherflow.read_filter, aetherflow.let_through from public;
select aetherflow.apply_rights();
