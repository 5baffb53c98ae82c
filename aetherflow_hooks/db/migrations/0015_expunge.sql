-- Expunge: the content of an event goes, where somebody has a right to that; what happened with it stays.

alter table aetherflow.events add column expunged_at timestamptz;
comment on column aetherflow.events.expunged_at is 'When its data was deleted on request; it is sent to nobody since.';

create function aetherflow.expunge(expunged text) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    found_tenant text;
begin
    update aetherflow.events e
    set data = '{}', expunged_at = coalesce(e.expunged_at, now())
    where e.shard = aetherflow.shard_of(expunged) and e.id = expunged
    returning e.tenant into found_tenant;
    if not found then
        return false;
    end if;
    delete from aetherflow.outbox o
    where o.shard = aetherflow.shard_of(expunged) and o.event_id = expunged;
    -- No index of what waits leads with the event, so it is looked for at each endpoint of the tenant.
    with cancelled as (
        delete from aetherflow.deliveries d
        using aetherflow.endpoints e
        where e.tenant = found_tenant and d.shard = e.shard and d.endpoint_id = e.id and d.event_id = expunged
        returning d.*
    )
    insert into aetherflow.dead (shard, endpoint_id, event_id, event_shard, attempts, reason)
    select c.shard, c.endpoint_id, c.event_id, c.event_shard, c.attempt, 'cancelled' from cancelled c
    on conflict (shard, endpoint_id, event_id) do update
    set attempts = excluded.attempts, reason = excluded.reason, died_at = excluded.died_at;
    update aetherflow.attempts a
    set response = null
    where a.event_id = expunged and a.started_at >= aetherflow.event_moment(expunged) - interval '1 day'
      and a.response is not null;
    return true;
end
$$;
comment on function aetherflow.expunge(text) is
    'Delete the data of an event and the answers to it; give up what still waits of it. False: there is no such event.';
revoke execute on function aetherflow.expunge from public;
select aetherflow.apply_rights();
