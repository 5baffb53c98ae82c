"""Tokens."""

from http import HTTPStatus

from aetherflow_hooks.manage import tokens
from aetherflow_hooks.manage.tokens import Scope
from aetherflow_hooks.web import shapes
from aetherflow_hooks.web.routes import Call, route


@route("GET", "/tokens", Scope.ADMIN)
async def list_(call: Call) -> shapes.TokensPage:
    """List tokens by age, without what opens anything."""
    rows = await tokens.list_tokens(call.database)
    return shapes.TokensPage(items=[shapes.TokenShape(**row) for row in rows])


@route("POST", "/tokens", Scope.ADMIN, status=HTTPStatus.CREATED)
async def add(call: Call, body: shapes.NewTokenShape) -> shapes.AddedTokenShape:
    """Make a token; it is told this once."""
    made = await tokens.add_token(
        call.database,
        body.name,
        body.scope,
        tenant=body.tenant,
        expires_at=body.expires_at,
    )
    return shapes.AddedTokenShape(**made)


@route("DELETE", "/tokens/{token_id}", Scope.ADMIN)
async def revoke(call: Call, token_id: str) -> None:
    """Take a token back: it opens nothing from now on."""
    await tokens.revoke_token(call.database, token_id)


ROUTES = (list_, add, revoke)
