-- Lists: what history is looked through by, a page at a time, however much of it there is.

-- Its condition is always true, and stands here so that only who asks for it by that is led by it: what
-- looks for an endpoint's last attempt must not walk back through those of all the others.
create index attempts_started on aetherflow.attempts (started_at) where shard >= 0;
comment on index aetherflow.attempts_started is 'Attempts by time.';
create index attempts_failed on aetherflow.attempts (started_at) where verdict <> 'delivered';
comment on index aetherflow.attempts_failed is 'Those that failed by time, which are looked for among many that did not.';
create index dead_endpoint on aetherflow.dead (endpoint_id, died_at);
comment on index aetherflow.dead_endpoint is 'An endpoint''s dead deliveries by time.';
