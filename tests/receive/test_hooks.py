"""Hooks: which function is called for which event, and what is answered."""

import asyncio
import json
import threading
import typing
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from typing import Any, get_type_hints

import pytest

from aetherflow_hooks import errors
from aetherflow_hooks.receive import (
    Hooks,
    SeenInMemory,
    Webhook,
    catalogue,
    read,
    verify,
    verify_body,
)
from tests.conftest import World
from tests.receive.requests import SECRET, request


def hooks_that_note(**options: Any) -> tuple[Hooks, list[str]]:
    hooks = Hooks(SECRET, **options)
    noted: list[str] = []
    hooks.on("*")(lambda webhook: noted.append(webhook.id))
    return hooks, noted


async def test_each_function_gets_the_events_of_its_types() -> None:
    hooks = Hooks(SECRET)
    calls: list[tuple[str, str]] = []

    @hooks.on("workflow.failed")
    async def failed(webhook: Webhook[catalogue.WorkflowFailed]) -> None:
        calls.append(("failed", webhook.data["workflow"]["id"]))

    @hooks.on("workflow.*", "user.joined")
    def both(webhook: Webhook[Any]) -> None:
        calls.append(("both", webhook.type))

    data = '{"workflow": {"id": "wf_1"}}'
    assert await hooks.receive(*request("evt_1", data, event_type="workflow.failed")) == (
        200, "Processed", None,
    )  # fmt: skip
    assert calls == [("failed", "wf_1"), ("both", "workflow.failed")]
    assert (await hooks.receive(*request("evt_2", event_type="user.joined"))).status == 200
    assert calls[2:] == [("both", "user.joined")]
    assert (await hooks.receive(*request("evt_3", event_type="user.left"))).status == 200
    assert len(calls) == 3


async def test_a_webhook_says_what_was_sent() -> None:
    hooks = Hooks([f"{SECRET[:-1]}x", SECRET])
    got: list[Webhook[Any]] = []
    hooks.on("*")(got.append)
    body, headers = request("evt_1", '{"n": 9007199254740993}')
    assert (await hooks.receive(body, headers)).status == 200
    (webhook,) = got
    assert (webhook.id, webhook.type, webhook.data) == ("evt_1", "a.b", {"n": 9007199254740993})
    assert timedelta() <= datetime.now(UTC) - webhook.timestamp < timedelta(minutes=1)
    assert (webhook.attempt, webhook.body) == (1, body)
    assert webhook.delivery == headers["X-AetherFlow-Delivery"]
    assert read(body, headers, SECRET) == webhook


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"[]", b"\xff", b"null", b'{"event": "a"}', b"[" * 100_000,
        b'{"event":"a.b","id":"evt_other","timestamp":"2024-01-15T10:30:00Z","data":{}}',
        b'{"event":"a.b","id":"evt_1","timestamp":"yesterday","data":{}}',
        b'{"event":"a.b","id":"evt_1","timestamp":"2024-01-15T10:30:00Z","data":[]}',
        b'{"event":7,"id":"evt_1","timestamp":"2024-01-15T10:30:00Z","data":{}}',
        b'{"event":"a.b","id":"evt_1","timestamp":"2024-01-15T10:30:00Z","data":{"n":%s}}'
        % (b"9" * 5000),
    ],
)  # fmt: skip
async def test_what_is_signed_and_no_webhook_is_refused(body: bytes) -> None:
    hooks, noted = hooks_that_note()
    raw, headers = request("evt_1", body=body)
    assert (await hooks.receive(raw, headers)).status == 400
    assert hooks.receive_sync(raw, headers).status == 400
    assert noted == []
    with pytest.raises(errors.NotAWebhook):
        read(raw, headers, SECRET)


async def test_what_is_too_much_is_refused() -> None:
    hooks, noted = hooks_that_note(body_bytes_max=100)
    assert (await hooks.receive(*request("evt_1", '{"x": "' + "x" * 100 + '"}'))).status == 413
    assert noted == []


@pytest.mark.parametrize("is_awaited", [True, False])
async def test_what_raises_is_answered_with_500_and_comes_again(is_awaited: bool) -> None:
    hooks = Hooks(SECRET)
    tries = []

    @hooks.on("a.b")
    def fail_first(webhook: Webhook[Any]) -> None:
        tries.append(webhook.id)
        if len(tries) == 1:
            raise ValueError("not yet")

    async def receive() -> int:
        if is_awaited:
            return (await hooks.receive(*request("evt_1"))).status
        return hooks.receive_sync(*request("evt_1")).status

    assert [await receive() for _ in range(3)] == [500, 200, 200]
    assert len(tries) == 2


async def test_while_an_event_is_processed_its_repeats_are_told_to_come_later() -> None:
    hooks = Hooks(SECRET)
    goes_on = asyncio.Event()

    @hooks.on("a.b")
    async def wait(_webhook: Webhook[Any]) -> None:
        await goes_on.wait()

    first = asyncio.create_task(hooks.receive(*request("evt_1")))
    await asyncio.sleep(0)
    busy = await hooks.receive(*request("evt_1"))
    assert (busy.status, busy.headers) == (503, {"Retry-After": "1"})
    goes_on.set()
    assert (await first).status == 200
    assert (await hooks.receive(*request("evt_1"))).text == "Already processed"


async def test_a_function_that_is_not_awaited_does_not_hold_up_the_others() -> None:
    hooks = Hooks(SECRET)
    threads: list[int] = []
    hooks.on("a.b")(lambda _webhook: threads.append(threading.get_ident()))
    assert (await hooks.receive(*request("evt_1"))).status == 200
    assert threads != [threading.get_ident()]


async def test_what_gives_something_to_await_is_awaited() -> None:
    hooks = Hooks(SECRET)
    got: list[str] = []

    async def note(webhook: Webhook[Any]) -> None:
        await asyncio.sleep(0)
        got.append(webhook.id)

    class Noting:
        async def __call__(self, webhook: Webhook[Any]) -> None:
            await note(webhook)

    def wrapper(webhook: Webhook[Any]) -> Awaitable[None]:
        return note(webhook)

    hooks.on("a.b")(wrapper)
    hooks.on("a.b")(Noting())
    assert (await hooks.receive(*request("evt_1"))).status == 200
    assert got == ["evt_1", "evt_1"]
    assert hooks.receive_sync(*request("evt_2")).status == 500


async def test_a_function_in_a_thread_has_its_turn_until_it_ends() -> None:
    hooks = Hooks(SECRET)
    began, goes_on = threading.Event(), threading.Event()
    ended: list[str] = []

    @hooks.on("a.b")
    def wait(webhook: Webhook[Any]) -> None:
        began.set()
        goes_on.wait()
        ended.append(webhook.id)

    first = asyncio.create_task(hooks.receive(*request("evt_1")))
    await asyncio.to_thread(began.wait)
    first.cancel()  # as some frameworks do where the client hangs up
    await asyncio.sleep(0.01)
    assert (await hooks.receive(*request("evt_1"))).status == 503
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert ended == ["evt_1"]


async def test_something_else_that_was_cancelled_is_a_failure() -> None:
    hooks = Hooks(SECRET)

    @hooks.on("a.b")
    async def wait(_webhook: Webhook[Any]) -> None:
        other = asyncio.ensure_future(asyncio.sleep(60))
        other.cancel()
        await other

    assert (await hooks.receive(*request("evt_1"))).status == 500


async def test_headers_that_are_not_signed_are_taken_for_what_they_are() -> None:
    hooks = Hooks(SECRET)
    got: list[Webhook[Any]] = []
    hooks.on("*")(got.append)
    body, headers = request("evt_1")
    odd = {"X-AetherFlow-Attempt": "9" * 5_000, "X-AetherFlow-Delivery": "dlv\udcff\0"}
    assert (await hooks.receive(body, headers | odd)).status == 200
    assert (got[0].delivery, got[0].attempt) == ("", 1)


@pytest.mark.parametrize("secret", ["", " ", "whsec_", "whsk_", "whpk_", [], [""], [SECRET, ""]])
def test_where_the_secret_is_missing_nobody_is_trusted(secret: Any) -> None:
    signed_with_nothing = request("evt_1", secret="whsk_")
    for body, headers in (signed_with_nothing, request("evt_1")):
        with pytest.raises(errors.BadSignature, match="secret"):
            verify(body, headers, secret)
        with pytest.raises(errors.BadSignature):
            verify_body(body, headers["X-AetherFlow-Signature"], secret)


def test_a_public_key_is_no_secret() -> None:
    public = "whpk_" + "A" * 43 + "="
    body, headers = request("evt_1", secret=public)
    for key in (public, [SECRET, public]):
        with pytest.raises(errors.BadSignature):
            verify_body(body, headers["X-AetherFlow-Signature"], key)


async def test_what_cannot_be_called_is_told(caplog: pytest.LogCaptureFixture) -> None:
    hooks = Hooks(SECRET)
    with pytest.raises(errors.InputRefused, match="no event type"):
        hooks.on("a b")
    with pytest.raises(TypeError, match="has to take a webhook"):
        hooks.on("a")(print)

    def with_default(_webhook: Webhook[Any], _connection: Any = None) -> None: ...

    with pytest.raises(TypeError, match="without defaults"):
        hooks.on("a")(with_default)

    @hooks.on("with.connection")
    async def with_connection(_webhook: Webhook[Any], _connection: Any) -> None: ...

    @hooks.on("awaited")
    async def awaited(_webhook: Webhook[Any]) -> None: ...

    assert (await hooks.receive(*request("evt_1", event_type="with.connection"))).status == 500
    assert "give Hooks a SeenInPostgres, or use an Inbox" in caplog.text
    assert hooks.receive_sync(*request("evt_2", event_type="awaited")).status == 500
    assert "nothing is awaited here" in caplog.text


def test_memory_is_bounded_by_number_and_age() -> None:
    seen = SeenInMemory(events_max=3)
    for number in range(5):
        with seen.once_sync(f"evt_{number}") as turn:
            assert turn.is_new
    for number, is_new in ((4, False), (3, False), (2, False), (0, True)):
        with seen.once_sync(f"evt_{number}") as turn:
            assert turn.is_new is is_new
    old = SeenInMemory(age_seconds=-1)
    for _ in range(2):
        with old.once_sync("evt_1") as turn:
            assert turn.is_new
    assert len(old._done_at) <= 1


def shape(hint: Any) -> Any:
    """Give a type as its JSON Schema would be."""
    if typing.is_typeddict(hint):
        hints = get_type_hints(hint)
        return {
            "type": "object",
            "properties": {name: shape(one) for name, one in hints.items()},
            "required": sorted(hint.__required_keys__),
        }
    if typing.get_origin(hint) is list:
        return {"type": "array", "items": shape(*typing.get_args(hint))}
    return {"type": {str: "string", int: "integer", float: "number"}.get(hint, "object")}


def bare(schema: dict[str, Any]) -> dict[str, Any]:
    """Leave what a type of Python can say."""
    kept = {"type": schema["type"]}
    if "properties" in schema:
        kept["properties"] = {name: bare(one) for name, one in schema["properties"].items()}
        kept["required"] = sorted(schema.get("required", []))
    if "items" in schema:
        kept["items"] = bare(schema["items"])
    return kept


async def test_the_types_are_those_of_the_catalogue(world: World) -> None:
    rows = await world.rows("select type, schema from aetherflow.event_types where is_built_in")
    assert {row["type"]: bare(json.loads(row["schema"])) for row in rows} == {
        name: shape(data) for name, data in catalogue.DATA.items()
    }
