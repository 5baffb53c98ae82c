"""Secrets at rest: sealed wherever they are stored, and usable throughout a change of keys."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks

from aetherflow_hooks import start_engine
from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import InputRefused, KeyMissing
from aetherflow_hooks.flow import hold
from aetherflow_hooks.manage import keys
from aetherflow_hooks.manage.endpoints import NewEndpoint, add_endpoint, delete_endpoint
from aetherflow_hooks.manage.secrets import rotate_secret
from aetherflow_hooks.rules.sealing import Keyring, write_key
from tests.conftest import World

OLD, NEW = write_key("old", bytes(32)), write_key("new", bytes(range(32)))


async def endpoint(world: World, lines: str, path: str = "/", **new: Any) -> dict[str, Any]:
    settings = world.settings(secrets={"keys": lines})
    url = world.receiver.url(path, "200")
    return await add_endpoint(world.database, NewEndpoint(url=url, **new), settings=settings)


async def sent(world: World, lines: str) -> list[str]:
    """Let one event go out with these keys; give the secrets' states as `keys list` counts them."""
    count = len(world.receiver.received)
    async with world.engine(secrets={"keys": lines}):
        await world.emit()
        await world.receiver.wait_for(count + 1)
        await world.settled()
    return [row["key"] for row in await keys.secrets_by_key(world.database)]


def verified(world: World, secret: str) -> None:
    request = world.receiver.received[-1]
    standardwebhooks.Webhook(secret).verify(request.body, dict(request.headers))


async def everything_stored(world: World) -> str:
    """Give the text of every row of every table."""
    tables = await world.rows(
        "select format('select t::text from %I.%I t', schemaname, tablename) as sql"
        " from pg_tables where schemaname = 'aetherflow'"
    )
    return "\n".join([row["t"] for table in tables for row in await world.rows(table["sql"])])


async def test_a_secret_is_stored_and_sent_to_postgres_sealed_only(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch, bound = Database._fetch, []

    async def note(self: Database, sql: str, values: Sequence[Any]) -> Any:
        bound.append(repr(values))
        return await fetch(self, sql, values)

    monkeypatch.setattr(Database, "_fetch", note)
    added = await endpoint(world, OLD)
    ring = world.settings(secrets={"keys": OLD}).keyring()
    rotated = await rotate_secret(world.database, added["id"], keyring=ring)
    assert await sent(world, OLD) == ["old"]
    for secret in (added["secret"], rotated["secret"]):
        verified(world, secret)
        stored = await everything_stored(world)
        assert added["id"] in stored
        for place in (stored, *bound):
            assert secret not in place
            assert secret.removeprefix("whsec_") not in place


async def test_a_key_is_replaced_while_deliveries_go_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "PAGE_ENDPOINTS", 2)
    added = [await endpoint(world, "" if n == 0 else OLD, events=[f"e.{n}"]) for n in range(5)]
    last = await endpoint(world, OLD)
    assert await sent(world, OLD) == ["", "old"]
    both = world.settings(secrets={"keys": f"{NEW}\n{OLD}"}).keyring()
    async with world.engine(secrets={"keys": f"{NEW}\n{OLD}"}):
        sealing = asyncio.create_task(keys.seal_anew(world.database, both))
        while not sealing.done():
            await world.emit()
            await asyncio.sleep(0)
        assert await sealing == (len(added) + 1, [])
        assert await keys.seal_anew(world.database, both) == (0, [])
        await world.emit()
        await world.settled()
        verified(world, last["secret"])
    assert await sent(world, NEW) == ["new"]
    verified(world, last["secret"])
    with pytest.raises(KeyMissing, match=r"new \(6 secrets\)"):
        await start_engine(world.settings(secrets={"keys": OLD}))


SPOIL = (
    "update aetherflow.secrets set secret ="
    " (select secret from aetherflow.secrets where endpoint_id = $2) where endpoint_id = $1"
)


async def test_sealing_anew_passes_over_what_it_cannot_open(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "PAGE_ENDPOINTS", 1)
    first, second, third = sorted([(await endpoint(world, OLD))["id"] for _ in range(3)])
    await world.connection.execute(SPOIL, first, second)
    both = world.settings(secrets={"keys": f"{NEW}\n{OLD}"}).keyring()
    for done in (2, 0):
        sealed = await keys.seal_anew(world.database, both)
        assert sealed.done == done
        (why,) = sealed.unreadable
        assert why.startswith(f"the secret of {first} cannot be read")
    assert await world.value(
        "select count(*) from aetherflow.secrets where secret like 'sealed:1:new:%'"
        " and endpoint_id in ($1, $2)",
        *(second, third),
    )
    with pytest.raises(InputRefused, match="no keys to seal with"):
        await keys.seal_anew(world.database, Keyring({}))


async def test_what_changes_while_it_is_sealed_anew_stays_as_it_was_changed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = await endpoint(world, OLD)
    both = world.settings(secrets={"keys": f"{NEW}\n{OLD}"}).keyring()
    changed = both.seal("another secret, changed", added["id"], bytes(12))
    rows = Database.rows

    async def too_late(self: Database, statement: str, *values: Any) -> Any:
        if statement == "reseal_secrets":  # between what was read and what is written
            await world.connection.execute("update aetherflow.secrets set secret = $1", changed)
        return await rows(self, statement, *values)

    monkeypatch.setattr(Database, "rows", too_late)
    assert await keys.seal_anew(world.database, both) == (0, [])
    assert await world.value("select secret from aetherflow.secrets") == changed


async def test_c_08_nothing_is_sent_with_a_secret_that_is_not_the_endpoints(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold, "LOOK_SECONDS", 0.05)
    bad = await endpoint(world, OLD, "/bad", retry_schedule_seconds=[])
    good = await endpoint(world, OLD, "/good")
    whole = await world.value(
        "select secret from aetherflow.secrets where endpoint_id = $1", bad["id"]
    )
    await world.connection.execute(SPOIL, bad["id"], good["id"])
    reason = "select state_reason from aetherflow.endpoints where id = $1"
    with caplog.at_level(logging.ERROR):
        async with world.engine(secrets={"keys": OLD}):
            for _ in range(3):
                await world.emit()
            await world.receiver.wait_for(3, "/good")
            await world.until("select true from aetherflow.endpoints where state_reason <> ''")
            assert await world.value(reason, bad["id"]) == "secret_unavailable"
            await world.until("select bool_and(lease_token = 0) from aetherflow.deliveries")
            waiting = await world.rows("select endpoint_id, attempt from aetherflow.deliveries")
            assert [tuple(row) for row in waiting] == [(bad["id"], 0)] * 3
            assert "/bad" not in {request.path for request in world.receiver.received}
            # Put right, it is served without anybody's help.
            await world.connection.execute(
                "update aetherflow.secrets set secret = $2 where endpoint_id = $1", bad["id"], whole
            )
            await world.receiver.wait_for(3, "/bad")
            await world.settled()
    verified(world, bad["secret"])
    assert await world.value(reason, bad["id"]) == ""
    assert caplog.text.count("endpoint.unsignable") == 1


async def test_a_new_key_is_read_when_it_is_met(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold, "LOOK_SECONDS", 0.05)
    file = tmp_path / "keys"
    file.write_text(OLD, "ascii")
    file.chmod(0o600)
    async with world.engine(secrets={"keys_file": str(file)}):
        await endpoint(world, f"{NEW}\n{OLD}")
        await world.emit()
        await world.until("select true from aetherflow.endpoints where state_reason <> ''")
        file.write_text("nothing\n", "ascii")  # an editor may write it in pieces
        await asyncio.sleep(0.1)
        file.write_text(f"{OLD}\n{NEW}", "ascii")
        await world.settled()
    assert len(world.receiver.received) == 1


async def test_d_06_a_key_of_the_same_name_is_not_the_same_key(world: World) -> None:
    await endpoint(world, OLD)
    other = f"old {NEW.split()[1]}"
    with pytest.raises(KeyMissing, match=r"not as they were: old \(1 secrets\)"):
        await start_engine(world.settings(secrets={"keys": other}))


async def test_one_spoilt_row_does_not_keep_engines_from_starting(world: World) -> None:
    first, second = [(await endpoint(world, OLD))["id"] for _ in range(2)]
    await world.connection.execute(SPOIL, first, second)
    async with world.engine(secrets={"keys": OLD}):
        pass


async def test_in_production_plain_secrets_are_warned_of(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.endpoint()
    production = world.settings().model_copy(update={"profile": "production"})
    with caplog.at_level(logging.WARNING):
        async with start_engine(production):
            pass
    assert "secrets.plain" in caplog.text


TOKEN = {"Authorization": "Bearer canary-7f3a9c21", "X-Team": "payments"}


@pytest.mark.usefixtures("each_way")
async def test_an_endpoints_own_headers_are_sent_and_stored_sealed(world: World) -> None:
    added = await endpoint(world, OLD, headers=TOKEN)
    assert added["headers"] == ["Authorization", "X-Team"]
    stored = await everything_stored(world)
    assert "X-Team" in stored
    assert not [value for value in TOKEN.values() if value in stored]
    assert await sent(world, OLD) == ["old"]
    verified(world, added["secret"])
    request = world.receiver.received[-1]
    assert {name: request.headers[name.lower()] for name in TOKEN} == TOKEN
    both = world.settings(secrets={"keys": f"{NEW}\n{OLD}"}).keyring()
    assert await keys.seal_anew(world.database, both) == (1 + len(TOKEN), [])
    assert await sent(world, NEW) == ["new"]
    assert world.receiver.received[-1].headers["authorization"] == TOKEN["Authorization"]


async def test_a_header_that_another_hand_wrote_is_looked_at_before_it_is_sent(
    world: World,
) -> None:
    added = await endpoint(world, "", headers=TOKEN, retry_schedule_seconds=[])
    await world.connection.execute(
        "update aetherflow.headers set value = e'1\\r\\nHost: inner' where name = 'X-Team'"
    )
    async with world.engine():
        await world.emit()
        await world.until("select true from aetherflow.endpoints where state_reason <> ''")
    assert world.receiver.received == []
    assert await world.value("select count(*) from aetherflow.deliveries") == 1
    await world.connection.execute("update aetherflow.headers set value = '1'")
    await delete_endpoint(world.database, added["id"])
    assert await world.value("select count(*) from aetherflow.headers") == 0
