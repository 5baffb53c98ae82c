-- Sessions: who looks at the dashboard, after a log-in or by a link.

create table aetherflow.sessions (
    id          text collate "C" primary key,
    hash        bytea not null,
    kind        text not null check (kind in ('login', 'link')),
    token_id    text collate "C" references aetherflow.tokens (id),
    scope       text not null check (scope in ('read', 'write', 'admin')),
    tenant      text collate "C" check (tenant is not null or kind <> 'link'),
    created_at  timestamptz not null default clock_timestamp(),
    expires_at  timestamptz not null
);
comment on table aetherflow.sessions is 'What opens the dashboard for a while. The keys themselves are nowhere.';
comment on column aetherflow.sessions.id is '12 random hex digits, which stand in the key.';
comment on column aetherflow.sessions.hash is 'SHA-256 of what follows them: as that is random, it needs no salt.';
comment on column aetherflow.sessions.kind is 'login: a cookie has the key; link: it stands in the address of every page.';
comment on column aetherflow.sessions.token_id is 'The token that it came of, without which it opens nothing; null: a command made the link.';
comment on column aetherflow.sessions.scope is 'As that of a token.';
comment on column aetherflow.sessions.tenant is 'As that of a token.';
comment on column aetherflow.sessions.created_at is 'When somebody logged in, or the link was made.';
comment on column aetherflow.sessions.expires_at is 'It opens nothing from then on.';
comment on index aetherflow.sessions_pkey is 'A session by its id.';

insert into aetherflow.rights (role, object, privileges) values
    ('engine', 'sessions', 'select, insert, delete'),
    ('read', 'sessions', 'select (id, kind, token_id, scope, tenant, created_at, expires_at)');
select aetherflow.apply_rights();
