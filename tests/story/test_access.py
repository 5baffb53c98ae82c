"""Who may do what, and what was done: tokens, and a row for each change."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import InputRefused, NotFound
from aetherflow_hooks.manage import deliveries, endpoints, events, keys, replays, restore, secrets
from aetherflow_hooks.manage.audit import audited, list_changes
from aetherflow_hooks.manage.replays import NewReplay
from aetherflow_hooks.manage.tokens import (
    Access,
    Scope,
    access_of,
    add_token,
    list_tokens,
    revoke_token,
)
from aetherflow_hooks.model import EndpointState, delivery_id
from aetherflow_hooks.rules.sealing import write_key
from tests.conftest import World, secret_part, settings_for

KEYS = write_key("ours", bytes(32))


async def test_a_token_opens_what_it_says_until_it_is_revoked(world: World) -> None:
    database = world.database
    made = await add_token(database, "ci", Scope.WRITE, tenant="acme")
    presented = made["token"].encode()
    assert await access_of(database, presented) == Access(
        f"token:{made['id']}", made["id"], Scope.WRITE, "acme"
    )
    stored = await world.value("select to_jsonb(t)::text from aetherflow.tokens t")
    assert secret_part(made["token"]) not in stored
    (listed,) = await list_tokens(database)
    assert (listed["name"], listed["state"]) == ("ci", "active")
    assert listed["last_used_at"] is not None
    assert "hash" not in listed
    await revoke_token(database, made["id"])
    assert await access_of(database, presented) is None
    assert (await list_tokens(database))[0]["state"] == "revoked"
    with pytest.raises(NotFound):
        await revoke_token(database, made["id"])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda token: token[:-1] + b"A" if token[-1:] != b"A" else token[:-1] + b"B",
        lambda token: token[:-1],
        lambda token: token + b"=",
        lambda token: token + b"\n",
        lambda token: b"af_000000000000" + token[15:],
        lambda token: token.upper(),
        lambda _: b"",
        lambda _: b"\xff" * 62,
        lambda _: b"af_" + b"a" * 1_000_000,
    ],
)
async def test_what_is_not_quite_a_token_opens_nothing(
    world: World, spoil: Callable[[bytes], bytes]
) -> None:
    made = await add_token(world.database, "ci", Scope.READ)
    assert await access_of(world.database, spoil(made["token"].encode())) is None


async def test_a_token_expires(world: World) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    made = await add_token(world.database, "ci", Scope.READ, expires_at=soon)
    assert await access_of(world.database, made["token"].encode())
    await world.connection.execute("update aetherflow.tokens set expires_at = now()")
    assert await access_of(world.database, made["token"].encode()) is None
    assert (await list_tokens(world.database))[0]["state"] == "expired"


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"name": ""}, "1 to 128"),
        ({"name": "a\n"}, "printable"),
        ({"expires_at": datetime(2000, 1, 1, tzinfo=UTC)}, "would have expired"),
        ({"scope": Scope.ADMIN, "tenant": "acme"}, "ask for write"),
    ],
)
async def test_a_token_that_makes_no_sense_is_refused(
    world: World, asked: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InputRefused, match=reason):
        await add_token(world.database, **({"name": "ci", "scope": Scope.READ} | asked))
    assert await list_tokens(world.database) == []


def test_scopes_cover_each_other_in_order() -> None:
    covered = {(one, other) for one in Scope for other in Scope if one.covers(other)}
    assert covered == {
        *((scope, Scope.READ) for scope in Scope),
        (Scope.WRITE, Scope.WRITE),
        (Scope.ADMIN, Scope.WRITE),
        (Scope.ADMIN, Scope.ADMIN),
    }


async def test_every_change_is_on_record_with_who_and_what(world: World) -> None:
    database = world.database.acting("token:abc")
    settings = settings_for(world.dsn, secrets={"keys": KEYS})
    keyring = settings.keyring()
    url = world.receiver.url("/a")
    new = endpoints.NewEndpoint(url=url, headers={"Authorization": "canary"}, tenant="acme")
    endpoint_id = (await endpoints.add_endpoint(database, new, settings=settings))["id"]
    event_id = await world.emit(tenant="acme")
    async with world.engine(secrets={"keys": KEYS}):
        await world.settled()
    named = delivery_id(event_id, endpoint_id)
    token = await add_token(database, "ci", Scope.READ)
    replay = await replays.start_replay(database, NewReplay(only_failed=True))
    actions: dict[str, Callable[[], Awaitable[Any]]] = {
        "endpoint.change": lambda: endpoints.change_endpoint(
            database, endpoint_id, {"rate_per_second": 5.0}, settings=settings
        ),
        "endpoint.set_state": lambda: endpoints.set_endpoint_state(
            database, endpoint_id, EndpointState.PAUSED
        ),
        "endpoint.rotate_secret": lambda: secrets.rotate_secret(
            database, endpoint_id, keyring=keyring, secret="canary" * 6, leads=False
        ),
        "endpoint.promote_secret": lambda: secrets.promote_secret(database, endpoint_id),
        "endpoint.set_certificate": lambda: secrets.set_certificate(
            database, endpoint_id, None, keyring=keyring
        ),
        "delivery.retry": lambda: deliveries.retry_delivery(database, named),
        "delivery.cancel": lambda: deliveries.cancel_delivery(database, named),
        "event.expunge": lambda: events.expunge_event(database, event_id),
        "replay.cancel": lambda: replays.cancel_replay(database, replay["id"]),
        "token.revoke": lambda: revoke_token(database, token["id"]),
        "keys.rotate": lambda: keys.seal_anew(database, keyring),
        "restore.accept": lambda: restore.accept_restore(database),
        "endpoint.delete": lambda: endpoints.delete_endpoint(database, endpoint_id),
    }
    for act in actions.values():
        await act()
    changes = (await list_changes(database)).rows[::-1]
    assert [it["action"] for it in changes] == [
        *("endpoint.add", "token.add", "replay.start"),
        *actions,
    ]
    assert {it["actor"] for it in changes} == {"token:abc"}
    by_action = {it["action"]: it for it in changes}
    added = by_action["endpoint.add"]
    assert (added["before"], added["after"]["url"], added["tenant"]) == (None, url, "acme")
    assert by_action["endpoint.change"]["before"] == {"rate_per_second": None}
    assert by_action["endpoint.change"]["after"] == {"rate_per_second": 5.0}
    assert by_action["endpoint.set_state"]["after"] == {"state": "paused"}
    assert by_action["endpoint.delete"]["after"] is None
    assert by_action["endpoint.delete"]["before"]["url"] == url
    assert by_action["token.revoke"]["after"] == {"state": "revoked"}
    everything = str(changes)
    assert "canary" not in everything
    assert token["token"] not in everything
    of_one = (await list_changes(database, subject=endpoint_id)).rows
    assert {it["subject"] for it in of_one} == {endpoint_id}
    first = await list_changes(database, rows_max=10)
    rest = await list_changes(database, before=int(first.before or 0))
    assert first.rows + rest.rows == changes[::-1]


async def test_a_change_that_fails_is_not_on_record(world: World) -> None:
    endpoint = await world.endpoint("/a")
    before = await list_changes(world.database)
    with pytest.raises(NotFound):
        await endpoints.delete_endpoint(world.database, "ep_000000000000")
    with pytest.raises(InputRefused):
        await secrets.promote_secret(world.database, endpoint["id"])

    async def broken_off() -> None:
        async with audited(world.database, "endpoint.delete", endpoint["id"]) as bound:
            await bound.value("delete_endpoint", endpoint["id"])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await broken_off()
    assert await list_changes(world.database) == before
    assert (await endpoints.show_endpoint(world.database, endpoint["id"]))["state"] == "active"


async def test_changes_at_once_are_each_on_record(world: World) -> None:
    endpoint = await world.endpoint("/a")
    settings = world.settings()
    await asyncio.gather(
        *(
            endpoints.change_endpoint(
                world.database, endpoint["id"], {"burst": n}, settings=settings
            )
            for n in range(2, 7)
        )
    )
    rows = (await list_changes(world.database, subject=endpoint["id"])).rows
    changes = [(it["before"]["burst"], it["after"]["burst"]) for it in rows[-2::-1]]
    assert [before for before, _ in changes[1:]] == [after for _, after in changes[:-1]]
    assert sorted(after for _, after in changes) == [2, 3, 4, 5, 6]


async def test_a_transaction_takes_effect_as_a_whole(world: World) -> None:
    async with world.database.transaction() as bound:
        await bound.value("wake", "")
        assert isinstance(bound, Database)

    async def of_two_the_second_is_wrong() -> None:
        async with world.database.transaction() as bound:
            await events.emit_event(bound, "a.b", "{}")
            await events.emit_event(bound, "not a type", "{}")

    with pytest.raises(InputRefused):
        await of_two_the_second_is_wrong()
    assert await world.value("select count(*) from aetherflow.events") == 0
