"""Keys: which of them seal the stored secrets, and sealing anew with the first one."""

import secrets
from contextlib import suppress
from typing import Any, NamedTuple

from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import InputRefused, KeyMissing, SecretUnreadable
from aetherflow_hooks.manage.audit import audited
from aetherflow_hooks.rules.sealing import (
    KEY_BYTES,
    NONCE_BYTES,
    PREFIX,
    Keyring,
    owner_of,
    write_key,
)

PAGE_ENDPOINTS = 500
SAMPLES_MAX = 5  # of a key: one row that was spoilt says nothing about it


def new_key() -> str:
    """Make a key; give it as a line of a keys file."""
    return write_key(f"key_{secrets.token_hex(4)}", secrets.token_bytes(KEY_BYTES))


def seal(keyring: Keyring, value: str, endpoint_id: str, *, header: str | None = None) -> str:
    """Seal a secret of an endpoint, or the value of a `header`, each time in another way."""
    owner = owner_of(endpoint_id, header=header)
    return keyring.seal(value, owner, secrets.token_bytes(NONCE_BYTES))


async def secrets_by_key(database: Database) -> list[dict[str, Any]]:
    """Count what is stored by the id of the key that seals it; '' is not sealed."""
    return [dict(row) for row in await database.rows("secrets_by_key")]


async def check_keys(database: Database, keyring: Keyring) -> int:
    """Make sure that the keys open what is stored; give how much is not sealed.

    Raises:
        KeyMissing: a key is missing, or opens nothing of what it is said to have sealed.
    """
    counts = {row["key"]: row["secrets"] for row in await secrets_by_key(database)}
    plain: int = counts.pop("", 0)
    opened = set()
    for row in await database.rows("sample_secrets", SAMPLES_MAX):
        with suppress(SecretUnreadable):
            keyring.open(row["value"], owner_of(row["endpoint_id"], header=row["header"]))
            opened.add(row["key"])
    missing = {key: count for key, count in counts.items() if key not in opened}
    if missing:
        raise KeyMissing(missing)
    return plain


class Sealed(NamedTuple):
    """What came of sealing anew."""

    done: int
    unreadable: list[str]  # why, for each that stays as it is


async def seal_anew(database: Database, keyring: Keyring) -> Sealed:
    """Seal with the first key every secret and header that is not.

    It can be broken off and begun again at any time, and engines go on meanwhile: they have read
    what they need, and what they read later is sealed by one key or the other. What cannot be
    opened is passed over, and told.

    Raises:
        InputRefused: there are no keys.
    """
    if keyring.first is None:
        raise InputRefused("there are no keys to seal with: see `aetherflow-hooks keys new`")
    prefix, after, done, unreadable = f"{PREFIX}{keyring.first}:", "", 0, []
    while rows := await database.rows("find_secrets", prefix, after, PAGE_ENDPOINTS):
        opened = []
        for row in rows:
            owner = owner_of(row["endpoint_id"], header=row["header"])
            try:
                opened.append((row, keyring.open(row["value"], owner)))
            except SecretUnreadable as error:
                unreadable.append(str(error))
        changed = await database.rows(
            "reseal_secrets",
            [row["endpoint_id"] for row, _ in opened],
            [row["header"] for row, _ in opened],
            [row["made_at"] for row, _ in opened],
            [row["seen"] for row, _ in opened],
            [
                seal(keyring, value, row["endpoint_id"], header=row["header"])
                for row, value in opened
            ],
        )
        done += len(changed)
        after = rows[-1]["endpoint_id"]
    async with audited(database, "keys.rotate", keyring.first):
        return Sealed(done, unreadable)
