"""Sessions: what opens the dashboard for a while, to who logged in or was given a link."""

import re
from typing import Any

from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import InputRefused, NotFound
from aetherflow_hooks.manage.audit import audited
from aetherflow_hooks.manage.tokens import Access, Scope, access_of, is_secret_of, new_secret_part
from aetherflow_hooks.rules.ranges import in_range
from aetherflow_hooks.watch.log import LogEvent, log

LOGIN_SECONDS = 12 * 3_600.0
LOGINS_MAX = 20  # with one token at once; the oldest ends
LINK_SECONDS_DEFAULT = 3_600.0
LINK_SECONDS = (60.0, 7 * 86_400.0)
LOGIN, LINK = "login", "link"

_KEY = re.compile("([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


async def log_in(database: Database, token: bytes) -> str | None:
    """Give a key that opens for 12 hours what a token opens; None: that opens nothing.

    Of 20 with the same token the oldest opens nothing any more.
    """
    access = await access_of(database, token)
    if access is None:
        return None
    session_id, secret, digest = new_secret_part()
    await database.value(
        *("add_session", session_id, digest, LOGIN),
        *(access.token_id, access.scope, access.tenant, LOGIN_SECONDS),
    )
    await database.value("trim_logins", access.token_id, LOGINS_MAX)
    log.info(LogEvent.SESSION_BEGUN, token=access.token_id, session=session_id)
    return f"{session_id}_{secret}"


async def add_link(
    database: Database,
    tenant: str,
    *,
    scope: Scope = Scope.READ,
    seconds: float = LINK_SECONDS_DEFAULT,
    token_id: str | None = None,
) -> dict[str, Any]:
    """Make a link that opens what is of one tenant, for its customers to look at.

    Keys: as `list_links`, and this once `path`, where it leads on our server. It opens nothing any
    more once the token that it was made with does not.

    Raises:
        InputRefused: there is no tenant, the scope is admin's, or the time is not a minute to a
            week.
    """
    if not tenant:
        raise InputRefused("a link shows what is of one tenant, and none is named")
    if scope is Scope.ADMIN:
        raise InputRefused("a link is of one tenant, and an admin is not: ask for write")
    in_range("the time of a link in seconds", seconds, *LINK_SECONDS)
    link_id, secret, digest = new_secret_part()
    async with audited(database, "link.add", link_id, look=show_link) as bound:
        await bound.value("add_session", link_id, digest, LINK, token_id, scope, tenant, seconds)
        told = await show_link(bound, link_id)
    return {**told, "path": f"/portal/{link_id}_{secret}/"}


async def list_links(database: Database, *, tenant: str | None = None) -> list[dict[str, Any]]:
    """List links that have not ended, at most 1,000, the newest first.

    Keys: id, tenant, scope, token_id (that it was made with; None: by a command), created_at,
    expires_at.
    """
    return [dict(row) for row in await database.rows("list_links", None, tenant)]


async def show_link(database: Database, link_id: str) -> dict[str, Any]:
    """Give a link as it is listed.

    Raises:
        NotFound: there is none of this id.
    """
    rows = await database.rows("list_links", link_id, None)
    if not rows:
        raise NotFound("link", link_id)
    return dict(rows[0])


async def revoke_link(database: Database, link_id: str, *, tenant: str | None = None) -> None:
    """Take a link back: it opens nothing from now on.

    Raises:
        NotFound: there is none of this id, of that tenant where one is given.
    """
    async with audited(database, "link.revoke", link_id, look=show_link) as bound:
        if await bound.value("end_session", link_id, LINK, tenant) is None:
            raise NotFound("link", link_id)


async def session_access(database: Database, kind: str, key: str) -> Access | None:
    """Tell what the key of a log-in or of a link opens; None: nothing."""
    found = _KEY.fullmatch(key)
    session_id, secret = (found[1], found[2].encode()) if found else ("", b"")
    rows = await database.rows("find_session", session_id, kind)
    if not is_secret_of(secret, rows[0]["hash"] if rows else None):
        return None
    (row,) = rows
    actor = f"token:{row['token_id']}" if kind == LOGIN else f"link:{session_id}"
    return Access(actor, row["token_id"], Scope(row["scope"]), row["tenant"])


async def log_out(database: Database, key: str) -> None:
    """Let the key of a log-in open nothing any more."""
    access = await session_access(database, LOGIN, key)
    if access is not None:
        session_id = key.partition("_")[0]
        await database.value("end_session", session_id, LOGIN, None)
        log.info(LogEvent.SESSION_ENDED, token=access.token_id, session=session_id)
