"""Secrets: what an endpoint signs with and what it is shown, sealed and replaced."""

import secrets
from datetime import UTC, datetime
from typing import Any

from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import InputRefused, NotFound
from aetherflow_hooks.manage.audit import audited
from aetherflow_hooks.manage.keys import seal
from aetherflow_hooks.rules.certificates import read_certificate
from aetherflow_hooks.rules.ranges import in_range
from aetherflow_hooks.rules.sealing import CERTIFICATE, Keyring
from aetherflow_hooks.rules.signing import NEW_KEY_BYTES, check_secret, new_secret, public_key_of

OVERLAP_SECONDS_DEFAULT = 86_400.0
OVERLAP_SECONDS_MAX = 30 * 86_400.0

_SHOWN = ("tenant", "public_keys", "certificate", "certificate_expires_at")


async def rotate_secret(
    database: Database,
    endpoint_id: str,
    *,
    keyring: Keyring,
    secret: str | None = None,
    ed25519: bool | None = None,
    leads: bool = True,
    overlap_seconds: float = OVERLAP_SECONDS_DEFAULT,
) -> dict[str, Any]:
    """Give an endpoint a new secret, stored under `keyring`; tell its `id` and `secret`, this once.

    `webhook-signature` carries the signatures of the new secret and of those before it, and
    `X-AetherFlow-Signature` is made with the new one at once; or, where it does not lead, from
    `promote_secret` on. From then on the others have `overlap_seconds`. An endpoint that signs with
    a pair of keys gets another pair, unless `ed25519` says otherwise; then `secret` is None.

    Raises:
        NotFound: there is no such endpoint.
        InputRefused: `secret` breaks a rule, the overlap is not 0 to 30 days, 5 secrets are in
            force, or one waits to be promoted.
    """
    in_range("the overlap", overlap_seconds, 0, OVERLAP_SECONDS_MAX)
    if ed25519 is None:
        rows = await database.rows("list_endpoints", None, endpoint_id, None, None, None, 1)
        ed25519 = secret is None and any(row["public_keys"] for row in rows)
    new = chosen_secret(secret, ed25519=ed25519)
    async with audited(database, "endpoint.rotate_secret", endpoint_id, look=_secrets) as bound:
        was_found = await bound.value(
            "rotate_secret",
            endpoint_id,
            seal(keyring, new, endpoint_id),
            public_key_of(new),
            leads,
            overlap_seconds,
        )
        if not was_found:
            raise NotFound("endpoint", endpoint_id)
        await bound.value("wake", endpoint_id)
    told = {"id": endpoint_id, "secret": None if ed25519 else new}
    return told | {"public_key": public_key_of(new)}


async def promote_secret(
    database: Database, endpoint_id: str, *, overlap_seconds: float = OVERLAP_SECONDS_DEFAULT
) -> None:
    """Make `X-AetherFlow-Signature` with the secret that waits; those before it have the overlap.

    Raises:
        NotFound: there is no such endpoint.
        InputRefused: no secret waits, or the overlap is not 0 to 30 days.
    """
    in_range("the overlap", overlap_seconds, 0, OVERLAP_SECONDS_MAX)
    async with audited(database, "endpoint.promote_secret", endpoint_id, look=_secrets) as bound:
        if not await bound.value("promote_secret", endpoint_id, overlap_seconds):
            raise NotFound("endpoint", endpoint_id)
        await bound.value("wake", endpoint_id)


async def set_certificate(
    database: Database, endpoint_id: str, pem: str | None, *, keyring: Keyring
) -> None:
    """Show an endpoint this certificate, a PEM with its private key, from now on; None: no more.

    Raises:
        NotFound: there is no such endpoint.
        InputRefused: it is not a certificate with its key, or it has expired.
    """
    certified = stored_certificate(pem, endpoint_id, keyring)
    async with audited(database, "endpoint.set_certificate", endpoint_id, look=_secrets) as bound:
        for row in await bound.rows("list_endpoints", None, endpoint_id, None, None, None, 1):
            if row["polled"]:
                raise InputRefused(f"{endpoint_id} is polled: nobody is shown a certificate")
        if await bound.value("set_certificate", endpoint_id, *certified) is None:
            raise NotFound("endpoint", endpoint_id)
        await bound.value("wake", endpoint_id)


def stored_certificate(
    pem: str | None, endpoint_id: str, keyring: Keyring
) -> tuple[str | None, str | None, datetime | None]:
    """Give a certificate as it is stored: sealed, its subject, and when it expires.

    Raises:
        InputRefused: it is not a certificate with its key, or it has expired.
    """
    if pem is None:
        return None, None, None
    certificate = read_certificate(pem)
    if certificate.expires_at <= datetime.now(UTC):
        raise InputRefused(f"the certificate has expired, at {certificate.expires_at}")
    return seal(keyring, pem, endpoint_id, header=CERTIFICATE), *certificate


def chosen_secret(own: str | None, *, ed25519: bool) -> str:
    """Take the secret that the user brings, or make one.

    Raises:
        InputRefused: it breaks a rule, or both are asked for.
    """
    if own is None:
        return new_secret(secrets.token_bytes(NEW_KEY_BYTES), ed25519=ed25519)
    if ed25519:
        raise InputRefused("a secret of your own or a new pair of keys, not both")
    return check_secret(own)


async def _secrets(database: Database, endpoint_id: str) -> dict[str, Any]:
    """Show what of an endpoint's secrets everybody may see."""
    rows = await database.rows("list_endpoints", None, endpoint_id, None, None, None, 1)
    if not rows:
        raise NotFound("endpoint", endpoint_id)
    return {name: value for name, value in rows[0].items() if name in _SHOWN}
