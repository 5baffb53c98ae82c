"""Retries: what follows a failed attempt, and when it ends."""

import asyncio
import itertools
import time
from email.utils import formatdate

import orjson
import pytest

from aetherflow_hooks.manage.endpoints import set_endpoint_state
from aetherflow_hooks.model import EndpointState
from tests.conftest import BRISK, World

NO_JITTER = {"jitter": 0.0}


def gaps(world: World, path: str = "/a") -> list[float]:
    began = [request.began for request in world.receiver.at(path)]
    return [later - earlier for earlier, later in itertools.pairwise(began)]


async def planned_pause_seconds(world: World) -> float:
    """How long after its failed attempt the waiting delivery is due."""
    await world.until(
        "select exists (select from aetherflow.deliveries where attempt = 1"
        " and leased_until < now())"
    )
    pause: float = await world.value(
        "select extract(epoch from d.due_at - a.started_at)::float8"
        " from aetherflow.deliveries d join aetherflow.attempts a using (endpoint_id, event_id)"
    )
    return pause


async def test_case_26_three_attempts_on_schedule_then_delivered(world: World) -> None:
    await world.endpoint("/a", "500,500,200", retry_schedule_seconds=[0.3, 0.6])
    async with world.engine():
        event_id = await world.emit()
        await world.settled()
    first, second = gaps(world)
    assert 0.24 <= first <= 0.36 + 0.2
    assert 0.48 <= second <= 0.72 + 0.2
    rows = await world.rows(
        "select attempt, status, verdict, outcome, error from aetherflow.attempts"
        " where event_id = $1 order by attempt",
        event_id,
    )
    assert [tuple(row) for row in rows] == [
        (1, 500, "retry", "answered", "answered 500"),
        (2, 500, "retry", "answered", "answered 500"),
        (3, 200, "delivered", "answered", None),
    ]


async def test_the_default_schedule_makes_four_attempts_and_a_dead_delivery(world: World) -> None:
    await world.endpoint("/a", "500")
    async with world.engine(retry=NO_JITTER):
        await world.emit()
        for attempt, pause in ((1, 10), (2, 60), (3, 600)):
            await world.until(
                "select exists (select from aetherflow.deliveries"
                " where attempt = $1 and leased_until < now())",
                attempt,
            )
            due_in = await world.value(
                "select extract(epoch from due_at - now())::float8 from aetherflow.deliveries"
            )
            assert pause - 2 < due_in <= pause
            await world.make_due()
        await world.settled()
    assert len(world.receiver.received) == 4
    dead = await world.rows("select attempts, reason from aetherflow.dead")
    assert [tuple(row) for row in dead] == [(4, "exhausted")]


async def test_case_27_an_empty_schedule_means_one_attempt(world: World) -> None:
    await world.endpoint("/a", "500", retry_schedule_seconds=[])
    async with world.engine():
        await world.emit()
        await world.settled()
    assert len(world.receiver.received) == 1
    assert await world.value("select reason from aetherflow.dead") == "exhausted"


async def test_case_28_the_operator_is_told_once_of_an_exhausted_delivery(world: World) -> None:
    operator = await world.endpoint(
        "/operator", "500", events=["aetherflow.*"], retry_schedule_seconds=[]
    )
    failing = await world.endpoint("/a", "503", tenant="t", retry_schedule_seconds=[0.02])
    await world.endpoint("/everything")  # a customer's: what is the operator's is not for it
    async with world.engine():
        event_id = await world.emit("order.paid", tenant="t")
        await world.receiver.wait_for(1, "/operator")
        await world.settled()
    # It failed to take that event too, and was not told of its own failure: no endless echo.
    (request,) = world.receiver.at("/operator")
    assert world.receiver.at("/everything") == []
    body = orjson.loads(request.body)
    assert body["event"] == "aetherflow.delivery.exhausted"
    assert body["data"] == {
        "delivery": {"id": f"dlv_{event_id[4:]}_{failing['id'][3:]}", "attempts": 2},
        "endpoint": {"id": failing["id"], "tenant": "t"},
        "event": {"id": event_id, "type": "order.paid"},
        "error": "answered 503",
    }
    assert (
        await world.value(
            "select count(*) from aetherflow.dead where endpoint_id = $1", operator["id"]
        )
        == 1
    )


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        ("3", 3, 3.5),
        ("31536000", 3600, 3601),
        ("0", 1, 1.5),  # never sooner than the schedule
        ("-5", 1, 1.5),
        ("soon", 1, 1.5),
        ("99999999999999999999", 3600, 3601),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600, 3601),
    ],
)
async def test_case_29_and_30_retry_after_delays_within_its_bounds(
    world: World, value: str, low: float, high: float
) -> None:
    await world.endpoint(
        "/a", f"429;retry-after={value.replace(',', '%2C')}", retry_schedule_seconds=[1]
    )
    await world.emit()
    async with world.engine(retry=NO_JITTER):
        assert low - 0.1 <= await planned_pause_seconds(world) <= high


async def test_case_29_a_date_is_as_good_as_seconds(world: World) -> None:
    date = formatdate(time.time() + 30, usegmt=True)
    await world.endpoint(
        "/a", f"503;retry-after={date.replace(',', '%2C')}", retry_schedule_seconds=[1]
    )
    await world.emit()
    async with world.engine(retry=NO_JITTER):
        assert 28 <= await planned_pause_seconds(world) <= 30.5


async def test_case_30_a_retry_after_shorter_than_the_schedule_changes_nothing(
    world: World,
) -> None:
    await world.endpoint("/a", "503;retry-after=2", retry_schedule_seconds=[30])
    await world.emit()
    async with world.engine(retry=NO_JITTER):
        assert 29.9 <= await planned_pause_seconds(world) <= 31


async def test_case_29_the_retry_really_waits(world: World) -> None:
    await world.endpoint("/a", "429;retry-after=1,200", retry_schedule_seconds=[0.01])
    await world.emit()
    async with world.engine():
        await world.settled()
    assert 1 <= gaps(world)[0] < 1.5


async def test_retry_after_on_another_status_means_nothing(world: World) -> None:
    await world.endpoint("/a", "500;retry-after=300", retry_schedule_seconds=[1])
    await world.emit()
    async with world.engine(retry=NO_JITTER):
        assert await planned_pause_seconds(world) < 1.5


async def test_case_31_an_answer_of_410_disables_the_endpoint(world: World) -> None:
    await world.endpoint("/operator", events=["aetherflow.endpoint.*"])
    gone = await world.endpoint("/gone", "410", events=["a.*"], max_in_flight=1)
    async with world.engine():
        first = await world.emit()
        await world.receiver.wait_for(1, "/operator")
        await world.emit()
        await world.settled()
    assert len(world.receiver.at("/gone")) == 1
    state = await world.rows(
        "select state, state_reason from aetherflow.endpoints where id = $1", gone["id"]
    )
    assert [tuple(row) for row in state] == [("disabled", "it answered 410 Gone")]
    dead = await world.rows("select event_id, reason, attempts from aetherflow.dead")
    assert [tuple(row) for row in dead] == [(first, "gone", 1)]
    body = orjson.loads(world.receiver.at("/operator")[0].body)
    assert body["event"] == "aetherflow.endpoint.disabled"
    assert body["data"] == {
        "endpoint": {"id": gone["id"], "tenant": ""},
        "reason": "it answered 410 Gone",
    }


async def test_what_waits_at_a_410_waits_until_it_is_enabled(world: World) -> None:
    gone = await world.endpoint("/gone", "410,200", max_in_flight=1)
    for _ in range(3):
        await world.emit()
    async with world.engine():
        await world.until("select state = 'disabled' from aetherflow.endpoints")
        await world.until(
            "select count(*) = 2 and bool_and(leased_until < now() and attempt = 0)"
            " from aetherflow.deliveries"
        )
        assert len(world.receiver.received) == 1
        await set_endpoint_state(world.database, gone["id"], EndpointState.ACTIVE)
        await world.settled()
    assert len(world.receiver.received) == 3


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_case_32_redirects_are_failures_and_never_followed(world: World, status: int) -> None:
    target = world.receiver.url("/target").replace(",", "%2C").replace("?", "%3F")
    await world.endpoint("/a", f"{status};location={target}", retry_schedule_seconds=[])
    await world.emit()
    async with world.engine():
        await world.settled()
    assert world.receiver.at("/target") == []
    assert await world.value("select status from aetherflow.attempts") == status
    assert await world.value("select reason from aetherflow.dead") == "exhausted"


@pytest.mark.parametrize("status", [300, 304, 400, 401, 404, 422, 500, 599])
async def test_case_33_whatever_is_not_2xx_is_retried(world: World, status: int) -> None:
    await world.endpoint("/a", f"{status},204", retry_schedule_seconds=[0.01])
    await world.emit()
    async with world.engine():
        await world.settled()
    assert len(world.receiver.received) == 2
    assert await world.value("select count(*) from aetherflow.dead") == 0


async def test_case_34_each_endpoint_follows_its_own_schedule(world: World) -> None:
    await world.endpoint("/quick", "500", retry_schedule_seconds=[0.05, 0.05])
    await world.endpoint("/slow", "500", retry_schedule_seconds=[0.5])
    await world.emit()
    async with world.engine():
        await world.settled()
    assert len(world.receiver.at("/quick")) == 3
    assert len(world.receiver.at("/slow")) == 2
    assert gaps(world, "/slow")[0] > 0.39


async def test_an_unreachable_endpoint_is_retried_and_says_why(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BRISK, "egress", {"allow": [".invalid"]})
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await world.endpoint(url=f"http://127.0.0.1:{port}/", retry_schedule_seconds=[0.01])
    await world.endpoint(url="http://no-such-name.invalid/", retry_schedule_seconds=[])
    await world.emit()
    async with world.engine():
        await world.settled()
    rows = await world.rows("select outcome, status, error from aetherflow.attempts order by error")
    assert [tuple(row)[:2] for row in rows] == [("not_reached", None)] * 3
    errors = [row["error"] for row in rows]
    assert errors[0].startswith("its name cannot be resolved")
    assert "onnect" in errors[1]
