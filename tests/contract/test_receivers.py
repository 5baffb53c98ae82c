"""Receivers that know us only from the documentation accept what the engine really sends."""

import base64
from collections.abc import Callable, Sequence

import pytest

from tests.conftest import World
from tests.contract.verifiers import (
    Case,
    case,
    go_accepts,
    node_accepts,
    node_official_accepts,
    python_accepts,
    python_official_accepts,
)

SECRETS = {
    "/new": None,
    "/long": "whsec_" + base64.b64encode(bytes(range(64))).decode(),
    "/own": "a secret of one's own, 16+",
}
EVENTS = {
    "workflow.completed": '{"workflow":{"id":"wf_abc123","name":"Email Processor"}}',
    "odd.text": '{"z":1,"a":9007199254740993,"esc":"\\u00e9\\ud83d\\ude80","raw":"é🚀  "}',
    "empty": "{}",
    "large": '{"x":"' + "y" * 500_000 + '"}',
}

VERIFIERS = [
    python_accepts, node_accepts, go_accepts, python_official_accepts, node_official_accepts,
]  # fmt: skip


async def sent(world: World) -> list[Case]:
    """Let the engine send each event to each endpoint, a first failure included."""
    secrets = {}
    for path, secret in SECRETS.items():
        added = await world.endpoint(path, "500,200", secret=secret, retry_schedule_seconds=[0.01])
        secrets[path] = added["secret"]
    async with world.engine():
        for event_type, data in EVENTS.items():
            await world.emit(event_type, data)
        await world.settled()
    assert len(world.receiver.received) == len(SECRETS) * (len(EVENTS) + 1)
    return [
        case(secrets[request.path], dict(request.headers), request.body)
        for request in world.receiver.received
    ]


@pytest.mark.parametrize("accepts", VERIFIERS, ids=lambda accepts: accepts.__name__)
async def test_receivers_accept_what_we_send(
    world: World, accepts: Callable[[Sequence[Case]], list[str]]
) -> None:
    cases = await sent(world)
    assert accepts(cases) == ["ok"] * len(cases)


async def test_a_receiver_with_a_public_key_accepts_what_we_send(world: World) -> None:
    added = await world.endpoint(ed25519=True)
    (public_key,) = added["public_keys"]
    async with world.engine():
        for event_type, data in EVENTS.items():
            await world.emit(event_type, data)
        await world.settled()
    requests = world.receiver.received
    assert len(requests) == len(EVENTS)
    cases = [case(public_key, request.headers, request.body) for request in requests]
    assert node_accepts(cases) == ["ok"] * len(cases)
    changed = [
        case(public_key, request.headers, request.body.replace(b'"data"', b'"date"'))
        for request in requests
    ]
    why = "refused: webhook-signature does not fit the body and the public key"
    assert node_accepts(changed) == [why] * len(changed)
