-- Certificates that endpoints want to see of us, with their keys.

create table aetherflow.certificates (
    endpoint_id  text collate "C" primary key,
    pem          text not null,
    subject      text not null,
    expires_at   timestamptz not null
);
comment on table aetherflow.certificates is 'What we show to endpoints that ask for a client''s certificate (mutual TLS).';
comment on column aetherflow.certificates.endpoint_id is 'To whom.';
comment on column aetherflow.certificates.pem is 'Certificates and private key, sealed where there is a key.';
comment on column aetherflow.certificates.subject is 'Whom it names, for people.';
comment on column aetherflow.certificates.expires_at is 'Until when it is good.';
comment on index aetherflow.certificates_pkey is 'An endpoint''s certificate.';
