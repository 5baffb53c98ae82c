"""Attempts."""

from http import HTTPStatus

from aetherflow_hooks.manage.attempts import Chosen, list_attempts
from aetherflow_hooks.manage.tokens import Scope
from aetherflow_hooks.web import shapes
from aetherflow_hooks.web.problems import Problem
from aetherflow_hooks.web.routes import Call, Stream, route

ALIVE_SECONDS = 5.0  # between signs of life, and looks whether the token still holds


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


@route("GET", "/attempts/stream", Scope.READ, streams=shapes.AttemptRow)
async def stream(call: Call, query: shapes.StreamQuery) -> Stream:
    """Tell attempts as they are recorded: server-sent events, `attempt`, and `missed` if any were.

    At most `limit` are told in a second, or 2,000 of one tenant or endpoint; and none that took
    longer than the default timeout, or that a poll has acknowledged later than that.
    """
    tenant = call.tenant(query.tenant)
    # However many links a tenant's customers have, they are one who listens.
    who = call.access.actor if call.access.is_token else f"tenant:{tenant}"
    async with call.lent.live.listening(who, tenant, query.endpoint_id, query.limit) as listener:
        if listener is None:
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "too many are listening: try again later")
        yield None
        while not listener.is_over and await call.still_in():
            attempts, missed = await listener.take(ALIVE_SECONDS)
            if missed:
                yield "missed", shapes.MissedShape(missed=missed)
            for attempt in attempts:
                yield "attempt", shapes.AttemptRow(**attempt)
            if not attempts:
                yield None


ROUTES = (list_, stream)
