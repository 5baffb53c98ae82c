"""Attempts."""

from aetherflow_hooks.manage.attempts import Chosen, list_attempts
from aetherflow_hooks.manage.tokens import Scope
from aetherflow_hooks.web import shapes
from aetherflow_hooks.web.routes import Call, route


@route("GET", "/attempts", Scope.READ)
async def list_(call: Call, query: shapes.AttemptsQuery) -> shapes.AttemptsPage:
    """List attempts, the newest first."""
    chosen = Chosen(
        since=query.since,
        until=query.until,
        endpoint_id=query.endpoint_id,
        tenant=call.tenant(query.tenant),
        pattern=query.type,
        only_failed=query.only_failed,
        verdict=query.verdict,
        status=query.status,
        error=query.error,
    )
    page = await list_attempts(
        call.database, chosen, before=query.before, after=query.after, rows_max=query.limit
    )
    return shapes.AttemptsPage(
        items=[shapes.AttemptRow(**row) for row in page.rows], before=page.before, after=page.after
    )


ROUTES = (list_,)
