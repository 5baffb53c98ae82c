"""Keys: which of them seal the stored secrets, and sealing anew with the first one."""

import hashlib
import secrets
from typing import Any

from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import InputRefused, KeyMissing
from aetherflow_hooks.rules.sealing import (
    KEY_BYTES,
    NONCE_BYTES,
    PREFIX,
    Keyring,
    owner_of,
    write_key,
)

PAGE_SECRETS = 500


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
    """Make sure that every stored secret can be opened; give how many are not sealed.

    Raises:
        KeyMissing: a key is missing; the message names it.
    """
    counts = {row["key"]: row["secrets"] for row in await secrets_by_key(database)}
    plain: int = counts.pop("", 0)
    missing = {key: count for key, count in counts.items() if key not in keyring}
    if missing:
        raise KeyMissing(missing)
    return plain


async def seal_anew(database: Database, keyring: Keyring) -> int:
    """Seal with the first key every secret and header that is not; give how many there were.

    It can be broken off and begun again at any time, and engines go on meanwhile: they have read
    what they need, and what they read later is sealed by one key or the other. A secret that was
    never sealed does not go to Postgres again: it is told by its digest there.

    Raises:
        InputRefused: there are no keys.
        SecretUnreadable: one of them cannot be opened; those before it are sealed anew.
    """
    if keyring.first is None:
        raise InputRefused("there are no keys to seal with: see `aetherflow-hooks keys new`")
    done = 0
    while rows := await database.rows("find_secrets", f"{PREFIX}{keyring.first}:", PAGE_SECRETS):
        opened = [
            keyring.open(row["value"], owner_of(row["endpoint_id"], header=row["header"]))
            for row in rows
        ]
        changed = await database.rows(
            "reseal_secrets",
            [row["endpoint_id"] for row in rows],
            [row["header"] for row in rows],
            [row["made_at"] for row in rows],
            [hashlib.sha256(row["value"].encode()).hexdigest() for row in rows],
            [
                seal(keyring, value, row["endpoint_id"], header=row["header"])
                for row, value in zip(rows, opened, strict=True)
            ],
        )
        done += len(changed)
    return done
