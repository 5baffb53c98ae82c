"""Endpoints are changed while engines run: what is not named stays, and nothing is lost."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from aetherflow_hooks.errors import InputRefused, NotFound
from aetherflow_hooks.manage.endpoints import (
    change_endpoint,
    delete_endpoint,
    set_endpoint_state,
    show_endpoint,
)
from aetherflow_hooks.model import EndpointState
from aetherflow_hooks.rules.sealing import write_key
from tests.conftest import World


async def test_a_change_holds_for_the_next_event_of_a_running_engine(world: World) -> None:
    endpoint = await world.endpoint("/old", headers={"X-Team": "one", "X-Stays": "here"})
    async with world.engine():
        await world.emit()
        await world.receiver.wait_for(1, "/old")
        await world.settled()
        headers = {"x-team": "two", "X-New": "there"}
        told = await world.change(endpoint["id"], url=world.receiver.url("/new"), headers=headers)
        assert told["headers"] == ["X-New", "X-Stays", "x-team"]
        await world.emit()
        (request,) = await world.receiver.wait_for(1, "/new")
        await world.change(endpoint["id"], headers={"X-TEAM": None, "x-new": None})
        await world.emit()
        (_, last) = await world.receiver.wait_for(2, "/new")
        await world.settled()
    assert len(world.receiver.at("/old")) == 1
    assert [request.headers[name] for name in ("x-team", "x-new", "x-stays")] == [
        "two",
        "there",
        "here",
    ]
    assert "x-team" not in last.headers
    assert last.headers["x-stays"] == "here"


async def test_what_waits_goes_by_the_change(world: World) -> None:
    endpoint = await world.endpoint("/old", "500", retry_schedule_seconds=[3600])
    async with world.engine():
        await world.emit()
        await world.until("select attempt = 1 and leased_until < now() from aetherflow.deliveries")
        await world.change(endpoint["id"], url=world.receiver.url("/new"))
        await world.make_due()
        await world.receiver.wait_for(1, "/new")
        await world.settled()


async def test_what_is_not_named_stays_and_none_is_the_setting(world: World) -> None:
    endpoint = await world.endpoint(
        events=["a.b", "c.*"],
        description="ours",
        rate_per_second=5.0,
        burst=7,
        max_in_flight=3,
        timeout_seconds=4.0,
        retry_schedule_seconds=[1, 2],
        ordering="skip",
    )
    before = await show_endpoint(world.database, endpoint["id"])
    after = await world.change(endpoint["id"], description="theirs", timeout_seconds=None)
    differ = {name for name, value in before.items() if after[name] != value}
    assert differ == {"description", "timeout_seconds", "version", "updated_at"}
    assert (after["description"], after["timeout_seconds"]) == ("theirs", None)
    nothing = {"rate_per_second": None, "max_in_flight": None, "retry_schedule_seconds": None}
    after = await world.change(endpoint["id"], **nothing, ordering="block")
    assert {name: after[name] for name in nothing} == nothing
    assert (after["burst"], after["ordering"]) == (7, "block")


async def test_a_pattern_that_stays_keeps_what_is_on_its_way(world: World) -> None:
    """Events of a pattern are for those who had asked for it when they were emitted."""
    endpoint = await world.endpoint(events=["a.b", "c.d"])
    kept, dropped, early = [await world.emit(name) for name in ("a.b", "c.d", "e.f")]
    after = await world.change(endpoint["id"], events=["e.f", "a.b", "a.b"])
    assert after["events"] == ["a.b", "e.f"]
    late = await world.emit("e.f")
    async with world.engine():
        requests = await world.receiver.wait_for(2)
        await world.settled()
    arrived = {request.headers["webhook-id"] for request in requests}
    assert arrived == {kept, late}
    assert not arrived & {dropped, early}


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        ("default", None),
        ("none", []),
        ("standard", [5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400]),
    ],
)
async def test_a_retry_schedule_has_a_name(
    world: World, name: str, schedule: list[float] | None
) -> None:
    endpoint = await world.endpoint(retry_schedule_seconds=[1])
    after = await world.change(endpoint["id"], retry_schedule_seconds=name)
    assert after["retry_schedule_seconds"] == schedule
    added = await world.endpoint("/other", retry_schedule_seconds=name)
    assert added["retry_schedule_seconds"] == schedule


@pytest.mark.parametrize(
    ("to", "complaint"),
    [
        ({"url": "ftp://example.com/"}, "does not start with https"),
        ({"events": []}, "1 to 100 patterns"),
        ({"events": ["*x"]}, "chooses no events"),
        ({"description": "\n"}, "printable"),
        ({"rate_per_second": 0.0}, "the rate is 0"),
        ({"timeout_seconds": float("nan")}, "the timeout is nan"),
        ({"retry_schedule_seconds": "often"}, "one of default, standard, none"),
        ({"retry_schedule_seconds": [1.0] * 51}, "the number of retries is 51"),
        ({"ordering": "skip"}, "chosen when it is added"),
        ({"headers": {"Host": "x"}}, "not for endpoints to set"),
        ({"headers": {"X-A": "1", "x-a": None}}, "given twice"),
        ({"headers": {f"X-{n}": "1" for n in range(20)}}, "at most 20 headers"),
    ],
)
async def test_what_breaks_a_rule_changes_nothing(
    world: World, to: dict[str, Any], complaint: str
) -> None:
    endpoint = await world.endpoint(headers={"X-Team": "a"})
    before = await show_endpoint(world.database, endpoint["id"])
    with pytest.raises(InputRefused, match=complaint):
        await world.change(endpoint["id"], **({"description": "new"} | to))
    assert await show_endpoint(world.database, endpoint["id"]) == before


async def test_changes_at_once_all_hold(world: World) -> None:
    endpoint = await world.endpoint()
    await asyncio.gather(
        world.change(endpoint["id"], description="new"),
        world.change(endpoint["id"], burst=9),
        world.change(endpoint["id"], events=["a.b"]),
        set_endpoint_state(world.database, endpoint["id"], EndpointState.PAUSED),
    )
    after = await show_endpoint(world.database, endpoint["id"])
    assert [after[name] for name in ("description", "burst", "events", "state")] == [
        *("new", 9, ["a.b"]),
        "paused",
    ]
    assert after["version"] == endpoint["version"] + 4


async def test_a_change_of_what_has_changed_since_is_refused(world: World) -> None:
    endpoint = await world.endpoint()
    seen = endpoint["version"]
    settings = world.settings()
    first = await change_endpoint(
        world.database, endpoint["id"], {"burst": 2}, settings=settings, version=seen
    )
    with pytest.raises(InputRefused, match="changed meanwhile"):
        await change_endpoint(
            world.database, endpoint["id"], {"burst": 3}, settings=settings, version=seen
        )
    assert await show_endpoint(world.database, endpoint["id"]) == first


async def test_how_the_last_url_did_is_forgotten_with_it(world: World) -> None:
    endpoint = await world.endpoint()
    await world.value(
        "update aetherflow.endpoints set failing_since = now(), failing_told_at = now()"
    )
    assert (await world.change(endpoint["id"], burst=2))["failing_since"] is not None
    after = await world.change(endpoint["id"], url=world.receiver.url("/new"))
    assert after["failing_since"] is None
    assert await world.value("select failing_told_at is null from aetherflow.endpoints")


async def test_a_changed_header_is_sealed(world: World, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(write_key("ours", bytes(32)))
    file.chmod(0o600)
    settings = world.settings(secrets={"keys_file": str(file)})
    endpoint = await world.endpoint(headers={"X-Key": "canary-one"})
    await change_endpoint(
        world.database, endpoint["id"], {"headers": {"X-Key": "canary-two"}}, settings=settings
    )
    (stored,) = await world.rows("select value from aetherflow.headers")
    assert stored["value"].startswith("sealed:1:ours:")
    assert "canary" not in stored["value"]


async def test_there_has_to_be_an_endpoint(world: World) -> None:
    endpoint = await world.endpoint()
    await delete_endpoint(world.database, endpoint["id"])
    for endpoint_id in (endpoint["id"], "ep_000000000000", "x"):
        with pytest.raises(NotFound):
            await world.change(endpoint_id, burst=2)
