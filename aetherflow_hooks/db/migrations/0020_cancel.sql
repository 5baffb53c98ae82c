-- Cancel: an event that is scheduled, or has not been fanned out yet, goes to nobody.

alter table aetherflow.events add column cancelled_at timestamptz;
comment on column aetherflow.events.cancelled_at is 'When somebody had it go to nobody, before it was fanned out.';

create function aetherflow.cancel_event(cancelled text) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    delete from aetherflow.outbox o
    using aetherflow.events e
    where e.shard = aetherflow.shard_of(cancelled) and e.id = cancelled
      and o.shard = e.shard and not o.begun and o.event_id = e.id
      and o.due_at between least(e.emitted_at, e.deliver_at) and greatest(e.emitted_at, e.deliver_at);
    if not found then
        return false;
    end if;
    update aetherflow.events e set cancelled_at = now()
    where e.shard = aetherflow.shard_of(cancelled) and e.id = cancelled;
    return true;
end
$$;
comment on function aetherflow.cancel_event(text) is
    'Let an event that has not been fanned out go to nobody. False: there is none that waits for that.';
revoke execute on function aetherflow.cancel_event from public;
select aetherflow.apply_rights();
