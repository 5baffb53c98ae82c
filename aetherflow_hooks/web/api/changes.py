"""Changes that somebody has made."""

from aetherflow_hooks.manage.audit import list_changes
from aetherflow_hooks.manage.tokens import Scope
from aetherflow_hooks.web import shapes
from aetherflow_hooks.web.routes import Call, route


@route("GET", "/changes", Scope.ADMIN)
async def list_(call: Call, query: shapes.ChangesQuery) -> shapes.ChangesPage:
    """List what was changed, by whom, and what it was before; the last first."""
    page = await list_changes(
        call.database, subject=query.subject, before=query.before, rows_max=query.limit
    )
    rows = [shapes.ChangeShape(**row) for row in page.rows]
    return shapes.ChangesPage(items=rows, before=page.before)


ROUTES = (list_,)
