-- Signing: public keys beside the secrets, and rotation in two steps where that is wanted.

alter table aetherflow.secrets
    add column public_key text,
    add column leads_at timestamptz not null default clock_timestamp();
update aetherflow.secrets set leads_at = made_at;
comment on column aetherflow.secrets.public_key is 'What verifies its signatures, where it signs with Ed25519; no secret.';
comment on column aetherflow.secrets.leads_at is 'Since when it makes X-AetherFlow-Signature; the latest one does. infinity: not until it is promoted.';
comment on column aetherflow.secrets.made_at is 'When it was made.';

-- Functions and not single statements: each of their steps sees what others committed while the
-- first one waited for the endpoint's row, so that two rotations at once come one after the other.

create function aetherflow.rotate_secret(
    id text, secret text, public_key text, leads boolean, overlap_seconds double precision
) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    in_force_max constant integer := 5;
begin
    update aetherflow.endpoints e set version = e.version + 1, updated_at = clock_timestamp()
    where e.id = rotate_secret.id and e.state <> 'deleted';
    if not found then
        return false;
    end if;
    if leads then
        update aetherflow.secrets k
        set ends_at = least(k.ends_at, clock_timestamp() + make_interval(secs => overlap_seconds))
        where k.endpoint_id = rotate_secret.id;
    elsif exists (select from aetherflow.secrets k
                  where k.endpoint_id = rotate_secret.id and k.leads_at = 'infinity' and k.ends_at = 'infinity') then
        raise exception using errcode = 'invalid_parameter_value', message =
            'a new secret waits to be promoted already: promote it first, or rotate without waiting';
    end if;
    if (select count(*) from aetherflow.secrets k
        where k.endpoint_id = rotate_secret.id and k.ends_at > clock_timestamp()) >= in_force_max then
        raise exception using errcode = 'invalid_parameter_value', message = format(
            '%s secrets sign for this endpoint already, the most there can be: wait until one has ended, '
            'or end all older ones at once with an overlap of 0', in_force_max);
    end if;
    insert into aetherflow.secrets (endpoint_id, secret, public_key, leads_at)
    values (rotate_secret.id, rotate_secret.secret, rotate_secret.public_key,
            case when leads then clock_timestamp() else 'infinity' end);
    return true;
end
$$;
comment on function aetherflow.rotate_secret(text, text, text, boolean, double precision) is
    'Give an endpoint a new secret. Where it leads at once, those before it end after the overlap.';

create function aetherflow.promote_secret(id text, overlap_seconds double precision) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    update aetherflow.endpoints e set version = e.version + 1, updated_at = clock_timestamp()
    where e.id = promote_secret.id and e.state <> 'deleted';
    if not found then
        return false;
    end if;
    update aetherflow.secrets k set leads_at = clock_timestamp()
    where k.endpoint_id = promote_secret.id and k.leads_at = 'infinity' and k.ends_at = 'infinity';
    if not found then
        raise exception using errcode = 'invalid_parameter_value', message =
            'no secret waits to be promoted: one is made by a rotation that keeps the old one in front';
    end if;
    update aetherflow.secrets k
    set ends_at = least(k.ends_at, clock_timestamp() + make_interval(secs => overlap_seconds))
    where k.endpoint_id = promote_secret.id
      and k.leads_at < (select max(n.leads_at) from aetherflow.secrets n where n.endpoint_id = promote_secret.id);
    return true;
end
$$;
comment on function aetherflow.promote_secret(text, double precision) is
    'Let the secret that waits lead; those before it end after the overlap.';

revoke execute on function aetherflow.rotate_secret, aetherflow.promote_secret from public;
