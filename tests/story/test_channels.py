"""Channels: which endpoints get an event by the words it carries, and what cannot be a channel."""

import json
from typing import Any

import asyncpg
import pytest

from aetherflow_hooks import emit
from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.manage.deliveries import retry_delivery
from aetherflow_hooks.manage.endpoints import (
    list_endpoints,
    show_endpoint,
)
from aetherflow_hooks.manage.events import emit_event, list_events, show_event
from aetherflow_hooks.manage.replays import NewReplay, count_replay, start_replay
from tests.conftest import World

LONGEST = "AZaz09_.:-" + 54 * "x"


def arrived(world: World, path: str) -> list[str]:
    """Name the types of what came, in order."""
    return sorted(json.loads(request.body)["event"] for request in world.receiver.at(path))


async def test_case_15_an_event_goes_to_its_channels_and_to_endpoints_without(
    world: World,
) -> None:
    for path, channels in (("/eu", ["eu"]), ("/us", ["us"]), ("/both", ["us", "eu"]), ("/all", [])):
        await world.endpoint(path, channels=channels)
    await world.emit("in.eu", channels=["eu"])
    await world.emit("in.us", channels=["us"])
    await world.emit("in.eu.and.us", channels=["eu", "us"])
    await world.emit("in.asia", channels=["asia"])
    await world.emit("in.none")
    await world.emit("in.an.empty.list", channels=[])
    await world.deliver()
    assert arrived(world, "/eu") == ["in.eu", "in.eu.and.us"]
    assert arrived(world, "/us") == ["in.eu.and.us", "in.us"]
    assert arrived(world, "/both") == ["in.eu", "in.eu.and.us", "in.us"]
    everything = ["in.an.empty.list", "in.asia", "in.eu", "in.eu.and.us", "in.none", "in.us"]
    assert arrived(world, "/all") == everything
    for request in world.receiver.at("/eu"):
        assert b"channel" not in request.body + str(request.headers).encode()


async def test_events_of_one_type_and_many_channels_are_told_apart(world: World) -> None:
    """They are fanned out together, some of them leased at once and some for an order."""
    lists = [[f"c{n}"] if n % 7 else [] for n in range(20)]
    lists += [[f"c{n}", f"c{n + 1}", "even" if n % 2 == 0 else "odd"] for n in range(10)]
    wanted: tuple[list[str], ...] = (["c3"], ["c4", "c19"], ["even", "c1"], ["nobody"], [])
    for place, channels in enumerate(wanted):
        await world.endpoint(f"/{place}", channels=channels, events=["a.b", "a.*"])
        await world.endpoint(f"/ordered/{place}", channels=channels, ordering="skip")
        await world.endpoint(f"/filtered/{place}", channels=channels, filter="$.n < 25")
    async with world.connection.transaction():
        for number, channels in enumerate(lists):
            await world.emit(data=f'{{"n":{number}}}', channels=channels)
    await world.deliver()
    for place, channels in enumerate(wanted):
        expected = [n for n, on in enumerate(lists) if not channels or set(on) & set(channels)]
        for path in (f"/{place}", f"/ordered/{place}"):
            numbers = [json.loads(it.body)["data"]["n"] for it in world.receiver.at(path)]
            assert sorted(numbers) == expected, path
        few = [json.loads(it.body)["data"]["n"] for it in world.receiver.at(f"/filtered/{place}")]
        assert sorted(few) == [n for n in expected if n < 25]


async def test_type_filter_and_channel_all_have_to_fit(world: World) -> None:
    await world.endpoint("/a", events=["order.*"], filter="$.n > 1", channels=["eu"])
    await world.endpoint("/b", filter="$.n > 1")
    await world.endpoint("/c", channels=["us"])
    for event_type, number, channels in (
        ("order.wanted", 2, ["eu"]),
        ("order.few", 1, ["eu"]),
        ("order.us", 2, ["us"]),
        ("user.eu", 2, ["eu"]),
        ("order.none", 2, []),
    ):
        await world.emit(event_type, f'{{"n":{number}}}', channels=channels)
    await world.deliver()
    assert arrived(world, "/a") == ["order.wanted"]
    assert arrived(world, "/b") == ["order.none", "order.us", "order.wanted", "user.eu"]
    assert arrived(world, "/c") == ["order.us"]


async def test_an_event_for_very_many_endpoints_reaches_those_of_its_channels(
    world: World,
) -> None:
    for number in range(12):
        await world.endpoint(f"/{number}", channels=[f"c{number % 3}"])
    await world.endpoint("/filtered", channels=["c1"], filter="$.n == 1")
    await world.emit(data='{"n":1}', channels=["c1", "c9"])
    await world.emit(data='{"n":2}', channels=["c2"])
    await world.emit(data='{"n":1}')
    await world.deliver(fanout={"endpoints_max": 2})
    came = [len(world.receiver.at(f"/{number}")) for number in range(12)]
    assert came == [0, 1, 1] * 4
    assert len(world.receiver.at("/filtered")) == 1


async def test_channels_of_two_tenants_have_nothing_to_do_with_each_other(world: World) -> None:
    await world.endpoint("/x", tenant="x", channels=["eu"])
    await world.endpoint("/y", tenant="y", channels=["eu"])
    await world.emit("a.b", tenant="x", channels=["eu"])
    await world.deliver()
    assert (arrived(world, "/x"), arrived(world, "/y")) == (["a.b"], [])


async def test_a_change_holds_for_what_is_fanned_out_from_then_on(world: World) -> None:
    own = (await world.endpoint("/a", channels=["eu", "eu", "us"]))["id"]
    assert (await show_endpoint(world.database, own))["channels"] == ["eu", "us"]
    async with world.engine():
        await world.emit("first.eu", channels=["eu"])
        await world.settled()
        assert (await world.change(own, channels=["asia"]))["channels"] == ["asia"]
        await world.emit("second.eu", channels=["eu"])
        await world.emit("second.asia", channels=["asia"])
        await world.settled()
        assert (await world.change(own, description="x"))["channels"] == ["asia"]
        assert (await world.change(own, channels=[]))["channels"] == []
        await world.emit("third.eu", channels=["eu"])
        await world.emit("third.none")
        await world.settled()
        await world.change(own, events=["fourth.*", "*"], channels=["us"])
        await world.change(own, events=["fourth.*", "fifth.us"])
        for event_type in ("fourth", "fifth"):
            for channel in ("us", "eu"):
                await world.emit(f"{event_type}.{channel}", channels=[channel])
        await world.settled()
    expected = ["fifth.us", "first.eu", "fourth.us", "second.asia", "third.eu", "third.none"]
    assert arrived(world, "/a") == expected
    assert [it["channels"] for it in (await list_endpoints(world.database)).rows] == [["us"]]


async def test_what_is_told_to_operators_reaches_whoever_has_asked_for_it(world: World) -> None:
    everything = await world.endpoint("/all", channels=["eu"])
    asked: dict[str, Any] = {"channels": ["ops"], "events": ["aetherflow.*"]}
    told = [await world.endpoint(f"/told/{number}", **asked) for number in range(5)]
    told.append(await world.endpoint("/in-turn", **asked, ordering="skip"))
    await world.endpoint("/bad", "500", channels=["eu"], retry_schedule_seconds=[])
    await world.emit("a.b", channels=["eu"])
    paths = [*(f"/told/{number}" for number in range(5)), "/in-turn"]
    async with world.engine(fanout={"endpoints_max": 2}):
        await world.settled()
        for path in paths:
            assert arrived(world, path) == ["aetherflow.delivery.exhausted"]
        assert arrived(world, "/all") == ["a.b"]
        for endpoint in (everything, *told):
            wanted = NewReplay(endpoint_id=endpoint["id"])
            assert (await count_replay(world.database, wanted))["deliveries"] == 1
            await start_replay(world.database, wanted)
        await world.until("select bool_and(state = 'done') from aetherflow.replays")
        await world.settled()
    for path in paths:
        assert arrived(world, path) == ["aetherflow.delivery.exhausted"] * 2


async def test_a_replay_to_a_new_endpoint_holds_to_its_channels(world: World) -> None:
    await world.emit("in.eu", channels=["us", "eu"])
    await world.emit("in.us", channels=["us"])
    await world.emit("in.none")
    async with world.engine():
        await world.settled()
        new = NewReplay(endpoint_id=(await world.endpoint("/late", channels=["eu"]))["id"])
        counted = await count_replay(world.database, new)
        assert counted == {"deliveries": 1, "endpoints": 1, "is_whole": True}
        await start_replay(world.database, new)
        await world.until("select bool_and(state = 'done') from aetherflow.replays")
        await world.settled()
        assert await world.value("select made from aetherflow.replays") == 1
    assert arrived(world, "/late") == ["in.eu"]


async def test_what_was_given_up_is_sent_again_whatever_the_channels_are_by_now(
    world: World,
) -> None:
    own = await world.endpoint("/a", "500,200", channels=["eu"], retry_schedule_seconds=[])
    other = await world.endpoint("/b", "500,200", channels=["eu"], retry_schedule_seconds=[])
    event_id = await world.emit(channels=["eu"])
    async with world.engine():
        await world.until("select count(*) = 2 from aetherflow.dead")
        for endpoint in (own, other):
            await world.change(endpoint["id"], channels=["us"])
        await retry_delivery(world.database, f"dlv_{event_id[4:]}_{own['id'][3:]}")
        wanted = NewReplay(endpoint_id=other["id"], only_failed=True)
        assert (await count_replay(world.database, wanted))["deliveries"] == 1
        await start_replay(world.database, wanted)
        await world.until("select count(*) = 0 from aetherflow.dead")
        await world.settled()
    assert (len(world.receiver.at("/a")), len(world.receiver.at("/b"))) == (2, 2)


async def test_python_gives_channels_and_the_first_of_a_key_stands(world: World) -> None:
    first = await emit(
        world.connection, "a.b", {}, channels=("eu", "eu", "us"), idempotency_key="k"
    )
    again = await emit(world.connection, "a.b", {}, channels=["asia"], idempotency_key="k")
    assert again == first
    shown = await show_event(world.database, first)
    assert shown["channels"] == ["eu", "us"]
    without = await emit(world.connection, "a.b", {})
    assert (await show_event(world.database, without))["channels"] == []
    assert await world.value(
        "select channels is null from aetherflow.events where id = $1", without
    )


async def test_events_are_found_by_a_channel(world: World) -> None:
    ids = [
        await world.emit(channels=["eu"] if number % 3 == 0 else ["us", "asia"])
        for number in range(9)
    ]
    found = await list_events(world.database, channel="eu", rows_max=2)
    assert [it["id"] for it in found.rows] == [ids[6], ids[3]]
    assert {tuple(it["channels"]) for it in found.rows} == {("eu",)}
    rest = await list_events(world.database, channel="eu", before=found.before)
    assert ([it["id"] for it in rest.rows], rest.before) == ([ids[0]], None)
    assert (await list_events(world.database, channel="e")).rows == []
    assert len((await list_events(world.database)).rows) == 9


BAD: list[tuple[Any, str]] = [
    (["a b"], "1 to 64 of A-Z"),
    ([""], "1 to 64 of A-Z"),
    (["eu\n"], "1 to 64 of A-Z"),
    (["ok", "é"], "1 to 64 of A-Z"),
    ([LONGEST + "x"], "1 to 64 of A-Z"),
    ([None], "1 to 64 of A-Z"),
    ([7], "1 to 64 of A-Z"),
    (None, "a list, such as"),
    ("eu", r"a list, such as \['eu', 'us'\]"),
]


@pytest.mark.parametrize(("channels", "told"), BAD)
async def test_what_is_no_channel_is_refused_and_nothing_is_written(
    world: World, channels: Any, told: str
) -> None:
    own = (await world.endpoint(channels=["eu"]))["id"]
    async with world.connection.transaction():  # it can go on
        with pytest.raises(InputRefused, match=told):
            await emit(world.connection, "a.b", {}, channels=channels)
        await world.emit()
    with pytest.raises(InputRefused, match=told):
        await emit_event(world.database, "a.b", "{}", channels=channels)
    with pytest.raises(InputRefused, match=told):
        await world.endpoint("/b", channels=channels)
    with pytest.raises(InputRefused, match=told):
        await world.change(own, channels=channels)
    assert await world.value("select count(*) from aetherflow.events") == 1
    assert await world.value("select channels from aetherflow.endpoints") == ["eu"]


async def test_sql_says_what_a_channel_is_and_how_many_there_may_be(world: World) -> None:
    for channel in ("a b", "", "eu\n", "é", LONGEST + "x", None):
        with pytest.raises(
            asyncpg.InvalidParameterValueError,
            match=r"(?s)the channel .* is not 1 to 64 characters of A-Z a-z 0-9 _ \. : -",
        ):
            await world.emit(channels=["ok", channel])
    with pytest.raises(
        asyncpg.InvalidParameterValueError, match="an event has at most 10 channels, and more"
    ):
        await world.emit(channels=[f"c{n}" for n in range(11)])
    most = [*(f"c{n}" for n in range(9)), LONGEST]
    event_id = await world.emit(channels=most * 3)
    assert (await show_event(world.database, event_id))["channels"] == most


async def test_an_event_has_at_most_10_and_an_endpoint_20(world: World) -> None:
    many = [f"c{number}" for number in range(21)]
    with pytest.raises(InputRefused, match="an event has at most 10 channels, and 11"):
        await emit(world.connection, "a.b", {}, channels=many[:11])
    with pytest.raises(InputRefused, match="an endpoint has at most 20 channels, and 21"):
        await world.endpoint(channels=many)
    added = await world.endpoint("/a", channels=many[:20])
    assert added["channels"] == many[:20]
    await world.emit("on.the.last", channels=[*many[19:], "x"])
    await world.deliver()
    assert arrived(world, "/a") == ["on.the.last"]


async def test_options_by_their_place_mean_what_they_did(world: World) -> None:
    """A program may have written them without their names, and may have any of three types."""
    for kind in ("text", "json", "jsonb"):
        event_id = await world.value(
            f"select aetherflow.emit('a.b', '{{}}'::{kind}, 't', $1, now() - interval '1 second',"
            " now() + interval '1 hour', 'order')",
            f"key of {kind}",
        )
        named = await world.value(
            f"select aetherflow.emit('a.b', '{{}}'::{kind}, tenant => 't',"
            " channels => array['eu', 'us'])"
        )
        for own, key, channels in ((event_id, "order", []), (named, None, ["eu", "us"])):
            shown = await show_event(world.database, own)
            assert (shown["tenant"], shown["ordering_key"], shown["channels"]) == (
                "t",
                key,
                channels,
            )
