-- Access: who may use the API, and what was changed by whom.

create table aetherflow.tokens (
    id            text collate "C" primary key,
    hash          bytea not null,
    name          text not null,
    scope         text not null check (scope in ('read', 'write', 'admin')),
    tenant        text collate "C" check (tenant is null or scope <> 'admin'),
    created_at    timestamptz not null default clock_timestamp(),
    expires_at    timestamptz not null default 'infinity',
    revoked_at    timestamptz,
    last_used_at  timestamptz
) with (fillfactor = 50);
comment on table aetherflow.tokens is 'What opens the API. The tokens themselves are nowhere.';
comment on column aetherflow.tokens.id is '12 random hex digits, which stand in the token.';
comment on column aetherflow.tokens.hash is 'SHA-256 of what follows them: as that is random, it needs no salt.';
comment on column aetherflow.tokens.name is 'For people: who has it.';
comment on column aetherflow.tokens.scope is 'read: looks; write: changes too; admin: decides over tokens and all else too.';
comment on column aetherflow.tokens.tenant is 'What is of others is not there for it; null: it sees everything.';
comment on column aetherflow.tokens.created_at is 'When it was made.';
comment on column aetherflow.tokens.expires_at is 'It opens nothing from then on.';
comment on column aetherflow.tokens.revoked_at is 'When it was taken back.';
comment on column aetherflow.tokens.last_used_at is 'When it last opened something, to the minute.';
comment on index aetherflow.tokens_pkey is 'A token by its id.';

create table aetherflow.audit (
    id       bigint generated always as identity primary key,
    at       timestamptz not null default clock_timestamp(),
    actor    text not null,
    action   text not null,
    subject  text collate "C" not null,
    tenant   text collate "C",
    before   text,
    after    text
);
comment on table aetherflow.audit is 'A row for each change that somebody made, in the same transaction. Rows are added, and never changed.';
comment on column aetherflow.audit.id is 'In the order of the changes, nearly.';
comment on column aetherflow.audit.at is 'When.';
comment on column aetherflow.audit.actor is 'Who: cli: and a user of the machine, token: and its id, or python.';
comment on column aetherflow.audit.action is 'What was done: endpoint.change and the like.';
comment on column aetherflow.audit.subject is 'The id of what was changed.';
comment on column aetherflow.audit.tenant is 'Whose that is; null: nobody''s.';
comment on column aetherflow.audit.before is 'What is different, as it was; a JSON object without secrets. Null: it was not there.';
comment on column aetherflow.audit.after is 'What is different, as it is from then on. Null: it is not there any more, or there is nothing to show.';
comment on sequence aetherflow.audit_id_seq is 'Numbers the changes.';
comment on index aetherflow.audit_pkey is 'Changes in their order.';
create index audit_subject on aetherflow.audit (subject, id);
comment on index aetherflow.audit_subject is 'The changes of one thing.';

create table aetherflow.repeats (
    token_id     text collate "C" not null,
    key          text collate "C" not null,
    fingerprint  bytea not null,
    answer       text,
    made_at      timestamptz not null default now(),
    primary key (token_id, key)
);
comment on table aetherflow.repeats is 'What was answered to requests with an idempotency key, for a day: who asks again is answered alike.';
comment on column aetherflow.repeats.token_id is 'Whose request.';
comment on column aetherflow.repeats.key is 'The key that they chose.';
comment on column aetherflow.repeats.fingerprint is 'SHA-256 of the request: another one with the same key is a mistake.';
comment on column aetherflow.repeats.answer is 'The answer, sealed where there is a key for it. Nobody but the engine reads it.';
comment on column aetherflow.repeats.made_at is 'When.';
comment on index aetherflow.repeats_pkey is 'One answer for each key of a token.';
create index repeats_made on aetherflow.repeats (made_at);
comment on index aetherflow.repeats_made is 'Retention: answers by age.';

insert into aetherflow.rights (role, object, privileges) values
    ('engine', 'repeats', 'select, insert, update, delete'),
    ('engine', 'tokens', 'select, insert, update'),
    ('engine', 'audit', 'select, insert'),
    ('read', 'tokens', 'select (id, name, scope, tenant, created_at, expires_at, revoked_at, last_used_at)'),
    ('read', 'audit', 'select');
select aetherflow.apply_rights();
