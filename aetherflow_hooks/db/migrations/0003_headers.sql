-- Headers of endpoints' own, and secrets that are sealed.

create table aetherflow.headers (
    endpoint_id  text collate "C" not null,
    name         text not null,
    value        text not null,
    primary key (endpoint_id, name)
);
comment on table aetherflow.headers is 'Headers that endpoints want beside ours. Nobody but the engine reads their values.';
comment on column aetherflow.headers.endpoint_id is 'Whose header.';
comment on column aetherflow.headers.name is 'Its name, as it is sent.';
comment on column aetherflow.headers.value is 'Its value, sealed where there is a key.';
comment on index aetherflow.headers_pkey is 'An endpoint''s headers.';

comment on column aetherflow.secrets.secret is 'The secret, sealed where there is a key.';
