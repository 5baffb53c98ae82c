"""Tokens: what opens the API, and for whom."""

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import InputRefused, NotFound
from aetherflow_hooks.manage.audit import audited

ID_BYTES = 6
SECRET_BYTES = 32
NAME_MAX = 128

_TOKEN = re.compile(rb"af_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_NOBODY = bytes(32)  # compared with where there is no such token, so that it takes as long


class Scope(StrEnum):
    """What a token may do; each may do what those before it may."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def covers(self, needed: "Scope") -> bool:
        """Tell whether this may do what needs that."""
        order = list(Scope)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, slots=True)
class Access:
    """Who somebody is, and what that opens."""

    actor: str  # token: or link: and its id, as the audit has it
    token_id: str | None  # which it comes of; None: a command made the link
    scope: Scope
    tenant: str | None  # None: every one

    @property
    def is_token(self) -> bool:
        """Tell whether it is somebody with a token, and no link."""
        return self.actor.startswith("token:")


async def add_token(
    database: Database,
    name: str,
    scope: Scope,
    *,
    tenant: str | None = None,
    expires_at: datetime | None = None,
) -> dict[str, Any]:
    """Make a token; give it as `list_tokens` does, and this once with its `token`.

    Raises:
        InputRefused: the name is not 1 to 128 printable characters, `expires_at` is past, or an
            admin's token is to be of one tenant.
    """
    if not 1 <= len(name) <= NAME_MAX or not name.isprintable():
        raise InputRefused(f"a token's name is 1 to {NAME_MAX} printable characters")
    if scope is Scope.ADMIN and tenant is not None:
        raise InputRefused("who decides over everything is not of one tenant: ask for write")
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise InputRefused(f"the token would have expired, at {expires_at}")
    token_id, secret, digest = new_secret_part()
    async with audited(database, "token.add", token_id, look=show_token) as bound:
        await bound.value("add_token", token_id, digest, name, scope, tenant, expires_at)
        told = await show_token(bound, token_id)
    return {**told, "token": f"af_{token_id}_{secret}"}


async def list_tokens(database: Database) -> list[dict[str, Any]]:
    """List tokens by age: id, name, scope, tenant, state, created_at, expires_at, last_used_at."""
    return [dict(row) for row in await database.rows("list_tokens", None)]


async def show_token(database: Database, token_id: str) -> dict[str, Any]:
    """Give a token as it is listed.

    Raises:
        NotFound: there is none of this id.
    """
    rows = await database.rows("list_tokens", token_id)
    if not rows:
        raise NotFound("token", token_id)
    return dict(rows[0])


async def revoke_token(database: Database, token_id: str) -> None:
    """Take a token back: it opens nothing from now on.

    Raises:
        NotFound: no token of this id is in force.
    """
    async with audited(database, "token.revoke", token_id, look=show_token) as bound:
        if await bound.value("revoke_token", token_id) is None:
            raise NotFound("token", token_id)


async def access_of(database: Database, presented: bytes) -> Access | None:
    """Tell what a token opens; None: nothing. It takes as long whatever is wrong with it."""
    found = _TOKEN.fullmatch(presented)
    token_id, secret = (found[1].decode(), found[2]) if found else ("", b"")
    rows = await database.rows("find_token", token_id)
    if not is_secret_of(secret, rows[0]["hash"] if rows else None):
        return None
    (row,) = rows
    if row["is_unused"]:
        await database.value("use_token", token_id)
    return Access(f"token:{token_id}", token_id, Scope(row["scope"]), row["tenant"])


def new_secret_part() -> tuple[str, str, bytes]:
    """Make an id, a secret of 256 bits that goes with it, and the digest that is kept of that."""
    secret = base64.urlsafe_b64encode(secrets.token_bytes(SECRET_BYTES)).rstrip(b"=")
    return secrets.token_hex(ID_BYTES), secret.decode(), hashlib.sha256(secret).digest()


def is_secret_of(presented: bytes, digest: bytes | None) -> bool:
    """Tell whether it is the secret of a digest; None: there is none, which takes as long."""
    return hmac.compare_digest(hashlib.sha256(presented).digest(), digest or _NOBODY)
