"""Hostile receivers: whatever they do, an attempt ends in time and the engine lives."""

import asyncio
import resource
import sys
import time
from urllib.parse import quote

import pytest

from tests.conftest import World

TIMEOUT = 0.4

pytestmark = pytest.mark.usefixtures("each_way")


async def the_attempt(world: World, script: str) -> dict[str, object]:
    """Let one attempt meet `script`, beside a good endpoint; give its row."""
    await world.endpoint("/bad", script, timeout_seconds=TIMEOUT, retry_schedule_seconds=[])
    await world.endpoint("/good")
    async with world.engine():
        await world.emit()
        await world.settled()
        await world.emit()  # the engine is as good as before
        await world.receiver.wait_for(2, "/good")
        await world.settled()
    rows = await world.rows(
        "select a.* from aetherflow.attempts a join aetherflow.endpoints e on e.id = a.endpoint_id"
        " where e.url like '%/bad%' order by a.started_at"
    )
    assert len(rows) == 2
    return dict(rows[0])


NEVER_ENDING = {
    "40": "hang",
    "40, not even reading": "deaf",
    "41, the body": "drip;every=0.05",
    "41, the head": "drip-head;every=0.05",
    "endless 103": "endless-103",
}


async def test_case_40_and_41_the_deadline_is_over_everything(world: World) -> None:
    for number, script in enumerate(NEVER_ENDING.values()):
        await world.endpoint(
            f"/{number}", script, timeout_seconds=TIMEOUT, retry_schedule_seconds=[]
        )
    await world.endpoint("/good")
    async with world.engine():
        await world.emit()
        await world.settled()
        await world.emit()  # the engine is as good as before
        await world.receiver.wait_for(2, "/good")
        await world.settled()
    rows = await world.rows("select * from aetherflow.attempts where verdict <> 'delivered'")
    assert len(rows) == 2 * len(NEVER_ENDING)
    for row in rows:
        assert (row["outcome"], row["status"]) == ("timed_out", None)
        assert row["error"] == "no answer within 0.4 s"
        # 10 % over, and what a busy machine adds to any timer
        assert TIMEOUT * 950 <= row["duration_ms"] <= TIMEOUT * 1100 + 150


async def test_what_is_said_without_end_is_not_listened_to(world: World) -> None:
    """It would cost as much as whole answers do, for as long as the deadline lasts."""
    for script in ("endless-103", "endless-extension"):
        await world.endpoint("/bad", script, timeout_seconds=1, retry_schedule_seconds=[])
    async with world.engine():
        await world.emit()
        await world.receiver.wait_for(2)
        before = time.process_time()
        await world.settled()
        took = time.process_time() - before
    for row in await world.rows("select outcome, status from aetherflow.attempts"):
        assert tuple(row) == ("timed_out", None)
    assert took < 0.6  # of 1 s, beside the receiver and the engine's looks for work


def memory_mib() -> float:
    """The most memory that this process has had."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (1 << 20 if sys.platform == "darwin" else 1 << 10)


@pytest.mark.parametrize(("case", "script"), [("42", "flood"), ("43", "bomb")])
async def test_case_42_and_43_an_answer_is_read_to_a_bound(
    world: World, case: str, script: str
) -> None:
    before = memory_mib()
    row = await the_attempt(world, script)
    assert (row["outcome"], row["status"], row["verdict"]) == ("answered", 200, "delivered")
    assert float(str(row["duration_ms"])) < TIMEOUT * 1000
    assert memory_mib() - before < 16


async def test_case_42_of_a_failing_answer_only_the_start_is_kept(world: World) -> None:
    await world.endpoint("/a", "500;size=1048576", retry_schedule_seconds=[])
    await world.emit()
    async with world.engine(record={"response_kept_bytes": 100}):
        await world.settled()
    assert await world.value("select length(response) from aetherflow.attempts") == 100


async def test_case_44_any_bytes_are_recorded(world: World) -> None:
    body = b"\x00\xff\xfe\x1b[2J\xed\xa0\x80<script>"
    await world.endpoint(
        "/a", f"500;body={quote(body)};x-odd={quote(body[1:5])}", retry_schedule_seconds=[]
    )
    await world.emit()
    async with world.engine():
        await world.settled()
    assert len(world.receiver.received) == 1
    assert await world.value("select response from aetherflow.attempts") == body


async def test_a_connection_that_breaks_is_a_failure_with_its_reason(world: World) -> None:
    row = await the_attempt(world, "reset")
    assert (row["outcome"], row["status"]) == ("not_reached", None)
    assert "the connection broke" in str(row["error"])


@pytest.mark.parametrize("script", ["later", "twice"])
async def test_an_answer_that_nobody_asked_for_is_not_taken_for_the_next(
    world: World, script: str
) -> None:
    """Each delivery is really sent, though answers lie on the kept connection."""
    await world.endpoint("/a", script, max_in_flight=1)
    async with world.engine():
        for number in range(1, 5):
            await world.emit()
            await world.receiver.wait_for(number)
            await asyncio.sleep(0.12)  # the time in which the unasked answer comes
        await world.settled()
    assert len(world.receiver.received) == 4
    assert await world.value("select count(*) from aetherflow.attempts where status = 200") == 4


async def test_a_good_receiver_keeps_its_connection(world: World) -> None:
    await world.endpoint("/a", max_in_flight=1)
    async with world.engine():
        for number in range(1, 6):
            await world.emit()
            await world.receiver.wait_for(number)
        await world.settled()
    assert {request.connection for request in world.receiver.received} == {1}


async def test_tenants_do_not_share_connections(world: World) -> None:
    for tenant in ("x", "y"):
        await world.endpoint("/a", tenant=tenant)
    async with world.engine():
        for tenant in ("x", "y", "x", "y"):
            await world.emit(tenant=tenant)
            await world.settled()
    connections = [request.connection for request in world.receiver.received]
    assert connections == [1, 2, 1, 2]


async def test_cookies_are_not_kept(world: World) -> None:
    await world.endpoint("/a", "200;set-cookie=a=b")
    async with world.engine():
        for _ in range(2):
            await world.emit()
            await world.settled()
    assert all("cookie" not in request.headers for request in world.receiver.received)


async def test_proxies_of_the_environment_are_not_used(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    await world.endpoint()
    async with world.engine():
        await world.emit()
        await world.settled()
    assert len(world.receiver.received) == 1


async def test_case_47_a_hanging_endpoint_does_not_hold_up_another(world: World) -> None:
    await world.endpoint("/hang", "hang", events=["hang"])
    await world.endpoint("/good", events=["good"])
    await world.value("select count(aetherflow.emit('hang', '{}')) from generate_series(1, 5000)")
    async with world.engine(engine={"grace_seconds": 0}):
        await world.until("select count(*) = 5000 from aetherflow.deliveries")
        late = []
        for number in range(1, 21):
            await world.emit("good")
            committed_at = time.monotonic()
            await world.receiver.wait_for(number, "/good")
            late.append(time.monotonic() - committed_at)
    assert sorted(late)[10] < 0.5
    assert (
        await world.value("select count(*) from aetherflow.deliveries where lease_token > 0") == 0
    )


async def test_connections_that_a_rush_has_made_go_when_it_is_over(world: World) -> None:
    await world.endpoint("/", "200;wait=0.2", max_in_flight=10, events=["a.b"])
    await world.endpoint("/calm", events=["calm"])
    async with world.engine(post={"keep_alive_seconds": 0.5}) as engine:
        for _ in range(30):
            await world.emit()
        await world.until("select count(*) >= 30 from aetherflow.attempts")
        rush = engine._post.connections()
        for _ in range(30):
            await world.emit("calm")
            await asyncio.sleep(0.05)
        await world.settled()
        calm = engine._post.connections()
    assert rush.opened >= 5
    assert calm.busy + calm.idle <= 3
