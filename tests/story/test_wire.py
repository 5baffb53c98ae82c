"""The wire: the bytes and headers that a receiver gets, and what official libraries say of them."""

import base64
import hashlib
import hmac
import json
import re
import time
from datetime import UTC, datetime
from importlib.metadata import version

import pytest
import standardwebhooks

from aetherflow_hooks.dev.receiver import Received
from tests.conftest import World

pytestmark = pytest.mark.usefixtures("each_way")

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()

ODD = (
    '{"z": 1,"a":9007199254740993, "big": 123456789012345678901234567890,\n'
    '"esc":"\\u00e9\\ud83d\\ude80\\/","raw":"é🚀","f":1.10,"e":1E5,"z":2, "n":-0}'
)


def official(request: Received, secret: str) -> None:
    """What a careful receiver does, with the official library."""
    standardwebhooks.Webhook(secret).verify(request.body, dict(request.headers))


async def one(world: World, **engine: dict[str, object]) -> Received:
    async with world.engine(**engine):
        (request,) = await world.receiver.wait_for(1)
        await world.settled()
    return request


async def test_a_request_is_exactly_what_the_contract_says(world: World) -> None:
    added = await world.endpoint("/hook", secret=SECRET)
    event_id = await world.emit("workflow.completed", '{"workflow":{"id":"wf_abc123"}}')
    request = await one(world)
    emitted_at: datetime = await world.value("select emitted_at from aetherflow.events")
    stamp = emitted_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert (
        request.body
        == (
            f'{{"event":"workflow.completed","id":"{event_id}","timestamp":"{stamp}",'
            '"data":{"workflow":{"id":"wf_abc123"}}}'
        ).encode()
    )
    headers = dict(request.headers)
    unix = headers.pop("webhook-timestamp")
    assert abs(int(unix) - time.time()) < 10
    content = f"{event_id}.{unix}.".encode() + request.body
    standard = hmac.digest(base64.b64decode(SECRET[6:]), content, hashlib.sha256)
    assert headers == {
        "host": f"127.0.0.1:{world.receiver.port}",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "content-length": str(len(request.body)),
        "user-agent": f"AetherFlow-Hooks/{version('aetherflow-hooks')}",
        "x-aetherflow-signature": hmac.new(SECRET.encode(), request.body, "sha256").hexdigest(),
        "x-aetherflow-event": "workflow.completed",
        "x-aetherflow-delivery": f"dlv_{event_id[4:]}_{added['id'][3:]}",
        "x-aetherflow-attempt": "1",
        "webhook-id": event_id,
        "webhook-signature": "v1," + base64.b64encode(standard).decode(),
    }
    assert re.fullmatch(r"evt_[0-9a-f]{24}", event_id)


async def test_case_19_data_arrives_byte_for_byte(world: World) -> None:
    await world.endpoint(secret=SECRET)
    await world.emit(data=ODD)
    request = await one(world)
    assert request.body.endswith(b'"data":' + ODD.encode() + b"}")
    official(request, SECRET)


async def test_json_keeps_its_text_and_jsonb_that_of_postgres(world: World) -> None:
    await world.endpoint()
    async with world.engine():
        for kind in ("json", "jsonb"):
            await world.value(f"select aetherflow.emit('{kind}', $1::{kind})", '{"b":1.0,"a":{ }}')
        requests = await world.receiver.wait_for(2)
        await world.settled()
    bodies = {r.headers["x-aetherflow-event"]: r.body for r in requests}
    assert bodies["json"].endswith(b'"data":{"b":1.0,"a":{ }}}')
    assert bodies["jsonb"].endswith(b'"data":{"a": {}, "b": 1.0}}')


async def test_one_event_is_the_same_bytes_at_every_endpoint(world: World) -> None:
    for number in range(5):
        await world.endpoint(f"/{number}")
    await world.emit(data=ODD)
    async with world.engine():
        requests = await world.receiver.wait_for(5)
        await world.settled()
    assert len({request.body for request in requests}) == 1
    assert len({request.headers["x-aetherflow-signature"] for request in requests}) == 5


async def test_a_secret_of_ones_own_is_its_own_key(world: World) -> None:
    plain = "s3cr3t-of-endpoint!"
    await world.endpoint(secret=plain)
    await world.emit()
    request = await one(world)
    own = hmac.new(plain.encode(), request.body, "sha256").hexdigest()
    assert request.headers["x-aetherflow-signature"] == own
    official(request, "whsec_" + base64.b64encode(plain.encode()).decode())


async def test_case_24_a_retry_has_the_same_id_and_body_and_a_fresh_signature(
    world: World,
) -> None:
    await world.endpoint("/a", "500,500,200", secret=SECRET, retry_schedule_seconds=[1.1, 1.1])
    await world.emit(data=ODD)
    async with world.engine(retry={"jitter": 0.0}):
        requests = await world.receiver.wait_for(3)
        await world.settled()
    assert len({request.body for request in requests}) == 1
    for name in ("webhook-id", "x-aetherflow-delivery", "x-aetherflow-signature"):
        assert len({request.headers[name] for request in requests}) == 1
    for name in ("webhook-timestamp", "webhook-signature"):
        assert len({request.headers[name] for request in requests}) == 3
    assert [request.headers["x-aetherflow-attempt"] for request in requests] == ["1", "2", "3"]
    for request in requests:
        official(request, SECRET)


async def test_the_body_is_valid_json_with_its_keys_in_order(world: World) -> None:
    await world.endpoint()
    await world.emit("a-b_c.D9", '{"nested":{"deep":[1,2,{"x":null}]}}')
    request = await one(world)
    assert list(json.loads(request.body)) == ["event", "id", "timestamp", "data"]
