"""Access: tokens, and what was changed by whom."""

from aiohttp import web

from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.manage.tokens import Scope
from aetherflow_hooks.web import shapes
from aetherflow_hooks.web.api import changes, tokens
from aetherflow_hooks.web.dashboard.forms import filled, moments, some
from aetherflow_hooks.web.dashboard.visits import Visit, page


@page("GET", "/tokens", is_of_portal=False)
async def list_(visit: Visit) -> web.Response:
    """List tokens, without what opens anything."""
    return await _shown(visit)


@page("POST", "/tokens", is_of_portal=False)
async def add(visit: Visit) -> web.Response:
    """Make a token, and show it this once."""
    try:
        given = some(visit.form, "name", "scope", "tenant") | moments(visit.form, "expires_at")
        made = await visit.ask(tokens.add, body=filled(shapes.NewTokenShape, given))
    except InputRefused as error:
        return await _shown(visit, wrong=str(error))
    return await _shown(visit, made=made)


@page("POST", "/tokens/{token_id}/revoke", is_of_portal=False)
async def revoke(visit: Visit, token_id: str) -> web.Response:
    """Take a token back."""
    await visit.ask(tokens.revoke, token_id=token_id)
    return visit.go("/tokens", did="revoked")


@page("GET", "/changes", is_of_portal=False)
async def list_changes(visit: Visit) -> web.Response:
    """List what was changed, by whom."""
    query = filled(shapes.ChangesQuery, some(visit.query, "subject", "before"))
    found = await visit.ask(changes.list_, query=query)
    return visit.show("changes.html", found=found, subject=query.subject or "")


async def _shown(
    visit: Visit, *, made: shapes.AddedTokenShape | None = None, wrong: str | None = None
) -> web.Response:
    found = await visit.ask(tokens.list_)
    return visit.show(
        "tokens.html",
        tokens=found.items,
        scopes=[str(scope) for scope in Scope],
        typed={"name": "", "scope": "", "tenant": "", "expires_at": ""}
        | dict(visit.form if wrong else {}),
        made=made,
        wrong=wrong,
    )


PAGES = (list_, add, revoke, list_changes)
