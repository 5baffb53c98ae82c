"""Rotation: secrets that follow each other, and pairs of keys in their place."""

import asyncio
import base64
import time
from functools import partial

import pytest
import standardwebhooks
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from aetherflow_hooks.dev.receiver import Received
from aetherflow_hooks.errors import BadSignature, InputRefused, NotFound
from aetherflow_hooks.manage.endpoints import show_endpoint
from aetherflow_hooks.manage.secrets import promote_secret, rotate_secret
from aetherflow_hooks.receive import verify, verify_body
from aetherflow_hooks.rules.sealing import Keyring
from aetherflow_hooks.rules.signing import new_secret, public_key_of
from tests.conftest import World

NO_KEYS = Keyring({})
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def official(request: Received, secret: str) -> None:
    """What a careful receiver does, with the official library."""
    standardwebhooks.Webhook(secret).verify(request.body, dict(request.headers))


async def one(world: World) -> Received:
    async with world.engine():
        (request,) = await world.receiver.wait_for(1)
        await world.settled()
    return request


async def test_case_21_during_a_rotation_both_secrets_sign(world: World) -> None:
    added = await world.endpoint(secret=SECRET)
    rotated = await rotate_secret(
        world.database, added["id"], keyring=NO_KEYS, overlap_seconds=3600
    )
    new = rotated["secret"]
    async with world.engine():
        await world.emit()
        (during,) = await world.receiver.wait_for(1)
        assert len(during.headers["webhook-signature"].split(" ")) == 2
        official(during, SECRET)
        official(during, new)
        verify_body(during.body, during.headers["x-aetherflow-signature"], new)

        await rotate_secret(
            world.database, added["id"], keyring=NO_KEYS, secret=new + "", overlap_seconds=0
        )
        await world.emit()
        after = (await world.receiver.wait_for(2))[1]
        await world.settled()
    assert len(after.headers["webhook-signature"].split(" ")) == 1
    official(after, new)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        official(after, SECRET)


async def test_an_old_secret_ends_by_itself_while_the_engine_runs(world: World) -> None:
    added = await world.endpoint(secret=SECRET)
    async with world.engine():
        await rotate_secret(world.database, added["id"], keyring=NO_KEYS, overlap_seconds=0.5)
        await world.emit()
        (during,) = await world.receiver.wait_for(1)
        await world.until("select now() > min(ends_at) from aetherflow.secrets")
        await world.emit()
        after = (await world.receiver.wait_for(2))[1]
        await world.settled()
    assert [r.headers["webhook-signature"].count("v1,") for r in (during, after)] == [2, 1]


async def test_case_20_with_ed25519_the_public_key_verifies(world: World) -> None:
    added = await world.endpoint(ed25519=True)
    (public_key,) = added["public_keys"]
    assert added["secret"] is None
    assert public_key.startswith("whpk_")
    await world.emit()
    request = await one(world)
    now = time.time()
    assert verify(request.body, request.headers, public_key) == request.headers["webhook-id"]
    for changed in (request.body[:-1] + b" ", b" " + request.body):
        with pytest.raises(BadSignature):
            verify(changed, request.headers, public_key)
    other = public_key_of(new_secret(bytes(32), ed25519=True))
    assert other is not None
    with pytest.raises(BadSignature):
        verify(request.body, request.headers, other)
    with pytest.raises(BadSignature):
        verify(request.body, request.headers, public_key, now_unix_seconds=now + 1000)
    # By the standard alone, as somebody else would write it:
    version, _, signature = request.headers["webhook-signature"].partition(",")
    assert version == "v1a"
    signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}."
    Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key.removeprefix("whpk_"))).verify(
        base64.b64decode(signature), signed.encode() + request.body
    )


async def test_an_endpoint_goes_over_to_ed25519_and_stays_there(world: World) -> None:
    added = await world.endpoint(secret=SECRET)
    change = partial(rotate_secret, world.database, added["id"], keyring=NO_KEYS)
    pairs = [await change(ed25519=True), await change()]
    assert [pair["secret"] for pair in pairs] == [None, None]
    public_keys = [pair["public_key"] for pair in reversed(pairs)]
    assert (await show_endpoint(world.database, added["id"]))["public_keys"] == public_keys
    await world.emit()
    request = await one(world)
    assert [item.partition(",")[0] for item in request.headers["webhook-signature"].split()] == [
        *("v1a", "v1a", "v1")
    ]
    official(request, SECRET)
    for public_key in public_keys:
        verify(request.body, request.headers, public_key)
    back = await change(ed25519=False)
    assert back["secret"].startswith("whsec_")


async def test_a_new_secret_can_wait_until_it_is_promoted(world: World) -> None:
    added = await world.endpoint(secret=SECRET)
    change = partial(rotate_secret, world.database, added["id"], keyring=NO_KEYS)
    new = (await change(leads=False))["secret"]
    with pytest.raises(InputRefused, match="waits to be promoted already"):
        await change(leads=False)
    async with world.engine():
        await world.emit()
        (before,) = await world.receiver.wait_for(1)
        await promote_secret(world.database, added["id"], overlap_seconds=3600)
        await world.emit()
        after = (await world.receiver.wait_for(2))[1]
        await world.settled()
    for request, leading in ((before, SECRET), (after, new)):
        official(request, SECRET)
        official(request, new)
        verify_body(request.body, request.headers["x-aetherflow-signature"], leading)
    with pytest.raises(InputRefused, match="no secret waits"):
        await promote_secret(world.database, added["id"])
    with pytest.raises(NotFound):
        await promote_secret(world.database, "ep_000000000000")


async def test_case_22_five_secrets_are_the_most_in_force(world: World) -> None:
    added = await world.endpoint(secret=SECRET)
    change = partial(rotate_secret, world.database, added["id"], keyring=NO_KEYS)
    # At once, as several operators might: still one of them leads and the others end.
    await asyncio.gather(*(change() for _ in range(4)))
    endless = "select count(*) from aetherflow.secrets where ends_at = 'infinity'"
    assert await world.value(endless) == 1
    with pytest.raises(InputRefused, match="5 secrets sign for this endpoint already"):
        await change()
    await world.emit()
    request = await one(world)
    assert request.headers["webhook-signature"].count("v1,") == 5
    official(request, SECRET)
    leaked = await change(overlap_seconds=0)
    assert await world.value(endless) == 1
    assert await world.value("select count(*) from aetherflow.secrets where ends_at > now()") == 1
    assert leaked["secret"]
