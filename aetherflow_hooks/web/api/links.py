"""Links: the dashboard for one tenant's customers, for a while."""

from http import HTTPStatus

from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.manage import sessions
from aetherflow_hooks.manage.tokens import Scope
from aetherflow_hooks.web import shapes
from aetherflow_hooks.web.routes import Call, route


@route("GET", "/links", Scope.READ)
async def list_(call: Call, query: shapes.OfTenant) -> shapes.LinksPage:
    """List links that have not ended, without what opens them."""
    rows = await sessions.list_links(call.database, tenant=call.tenant(query.tenant))
    return shapes.LinksPage(items=[shapes.LinkRow(**row) for row in rows])


@route("POST", "/links", Scope.WRITE, status=HTTPStatus.CREATED)
async def add(call: Call, body: shapes.NewLinkShape) -> shapes.AddedLinkShape:
    """Make a link that opens the dashboard of one tenant for a while; it is told this once.

    It opens nothing any more once the token that it was made with does not.
    """
    call.check(body.scope)
    tenant = call.tenant(body.tenant)
    if tenant is None:
        raise InputRefused("tenant: a link shows what is of one tenant: say which")
    made = await sessions.add_link(
        call.database,
        tenant,
        scope=body.scope,
        seconds=body.seconds,
        token_id=call.access.token_id,
    )
    return shapes.AddedLinkShape(**made)


@route("DELETE", "/links/{link_id}", Scope.WRITE)
async def revoke(call: Call, link_id: str) -> None:
    """Take a link back: it opens nothing from now on."""
    await sessions.revoke_link(call.database, link_id, tenant=call.access.tenant)


ROUTES = (list_, add, revoke)
