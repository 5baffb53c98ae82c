-- Polling: endpoints that ask for what waits for them, since nobody can post to where they are.
alter table aetherflow.endpoints
    add column polled boolean not null default false,
    add constraint endpoints_polled_check check (polled = (url = ''));
comment on column aetherflow.endpoints.polled is
    'It asks for its deliveries (GET /api/v1/poll), and nothing is posted to it. Chosen for good when it is added.';
comment on column aetherflow.endpoints.url is 'Where to POST; empty where it is polled.';
create index endpoints_polled on aetherflow.endpoints (id) where polled;
comment on index aetherflow.endpoints_polled is 'Which endpoints are polled, mostly none: nobody has to be told of their work.';
comment on column aetherflow.deliveries.lease_token is
    'Names the lease; whoever writes the result shows it. 0: nobody. Where its endpoint is polled, its last 12 bits say for how many seconds it was given.';
comment on column aetherflow.deliveries.leased_until is
    'Until then an engine is at it, or whoever has polled it. In no index, so that taking a lease rewrites none.';
comment on table aetherflow.attempts is 'One row per POST, or per time that a poll was given it: history, dropped by the day.';
