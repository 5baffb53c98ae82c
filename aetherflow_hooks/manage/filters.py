"""Filters of endpoints, read by Postgres and held against the language before they are stored."""

from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.rules.filters import CHARACTERS_MAX, EXAMPLE, check_filter

WRITTEN_MAX = 2 * CHARACTERS_MAX  # as Postgres writes it: 1e9999 has all its digits


async def stored_filter(database: Database, given: str | None) -> str | None:
    """Give a filter as it is stored and shown, which is as Postgres writes it.

    Raises:
        InputRefused: it is too long, no condition, or not of the language.
    """
    if given is None:
        return None
    if not 1 <= len(given) <= CHARACTERS_MAX:
        raise InputRefused(
            f"a filter is 1 to {CHARACTERS_MAX:,} characters, such as {EXAMPLE}, not {len(given):,}"
        )
    try:
        given.encode()
    except UnicodeEncodeError:
        raise InputRefused("the filter holds half of a surrogate pair, which is no text") from None
    written: str = await database.value("read_filter", given)
    if len(written) > WRITTEN_MAX:
        raise InputRefused("the filter holds a number that is too long to be looked for")
    check_filter(written)
    return written
