"""Repeats: a request with an idempotency key takes effect once, and is answered alike for a day.

As the draft of the IETF has it, draft-ietf-httpapi-idempotency-key-header: the same key with
another request is a mistake. One that is being carried out is waited for.
"""

import hashlib
import re
import secrets
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import DatabaseUnavailable, SecretUnreadable
from aetherflow_hooks.rules.sealing import NONCE_BYTES, Keyring
from aetherflow_hooks.web.problems import Problem

HEADER = "Idempotency-Key"
KEY = r"^[!-~]{1,255}$"


async def once(
    database: Database,
    keyring: Keyring,
    *,
    actor: str,
    key: str,
    request: bytes,
    make: Callable[[Database], Awaitable[str]],
) -> str:
    """Give what `make` answers within a transaction, or what it has answered before.

    Raises:
        Problem: 422, the key is none, or was used for another request.
        HooksError: as `make`; then nothing has taken effect, and the key is free.
    """
    if not re.fullmatch(KEY, key):
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"an {HEADER} is 1 to 255 visible ASCII characters"
        )
    fingerprint = hashlib.sha256(request).digest()
    owner = f"repeat:{actor}:{key}"
    async with database.transaction() as bound:
        if await bound.value("claim_repeat", actor, key, fingerprint) is not None:
            answer = await make(bound)
            sealed = keyring.seal(answer, owner, secrets.token_bytes(NONCE_BYTES))
            await bound.value("keep_answer", actor, key, sealed)
            return answer
        found = await bound.rows("find_repeat", actor, key)
    if not found:  # it was forgotten at this very moment
        raise DatabaseUnavailable("ask again")
    (known,) = found
    if known["fingerprint"] != fingerprint:
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"this {HEADER} was used for another request"
        )
    try:
        return keyring.open(known["answer"], owner)
    except SecretUnreadable:
        raise Problem(
            HTTPStatus.CONFLICT, f"this {HEADER} was used, and its answer cannot be read any more"
        ) from None
