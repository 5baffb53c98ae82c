"""status, numbers: how endpoints are doing, and how they did."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any

import click

from aetherflow_hooks.cli.endpoint import POLLED
from aetherflow_hooks.cli.session import (
    MOMENT,
    as_json,
    connected,
    plain,
    print_fields,
    print_rows,
    utc,
    with_database,
)
from aetherflow_hooks.config import Settings
from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import DatabaseUnavailable
from aetherflow_hooks.manage.numbers import Step, endpoint_numbers
from aetherflow_hooks.manage.pages import ROWS_MAX
from aetherflow_hooks.manage.status import PAGE_ROWS, endpoint_status, overview
from aetherflow_hooks.manage.vitals import Vitals, vitals

WATCH_SECONDS = 2.0
COLUMNS = (
    "id", "state", "waiting", "in_flight", "oldest_seconds", "attempts", "success_rate", "p50_ms",
    "p95_ms", "url",
)  # fmt: skip
POINT = (
    "starts_at", "attempts", "delivered", "success_rate", "p50_ms", "p95_ms", "p99_ms", "timed_out",
    "not_reached",
)  # fmt: skip


@click.command()
@click.option("--tenant", help="Only this tenant's endpoints.")
@click.option("--endpoint", "endpoint_id", metavar="ID", help="Only this one.")
@click.option("--after", metavar="ID", help="Go on behind this endpoint.")
@click.option(
    "--limit",
    type=click.IntRange(1, ROWS_MAX),
    default=PAGE_ROWS,
    show_default=True,
    help="At most so many.",
)
@click.option("--watch", is_flag=True, help="Tell it again every 2 s, until Ctrl-C.")
@as_json
@connected
def status(
    settings: Settings,
    tenant: str | None,
    endpoint_id: str | None,
    after: str | None,
    limit: int,
    watch: bool,
    as_json: bool,
) -> None:
    """Tell how all is going, and every endpoint: what waits now, and how the last hour went."""

    async def look(database: Database) -> None:
        whole = None
        if not as_json and endpoint_id is None:
            seconds = settings.engine.shard_lease_seconds
            seen = await vitals(database, seconds) if tenant is None else None
            whole = await overview(database, tenant=tenant), seen
        rows = await endpoint_status(
            database, tenant=tenant, endpoint_id=endpoint_id, after=after, rows_max=limit
        )
        if watch:
            click.clear()
        if whole is not None:
            _print_whole(*whole)
        print_rows(rows if as_json else [*map(_shown, rows)], COLUMNS, as_json=as_json)
        if len(rows) == limit and endpoint_id is None:
            click.echo(f"There may be more: --after {rows[-1]['id']}", err=True)

    if not watch:
        with_database(settings, lambda db, _: look(db))
        return
    with suppress(KeyboardInterrupt):
        with_database(settings, lambda db, _: _again_and_again(partial(look, db)))


async def _again_and_again(look: Callable[[], Awaitable[None]]) -> None:
    """Look until somebody ends it; a Postgres that is away for a while does not."""
    await look()
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        try:
            await look()
        except DatabaseUnavailable as error:
            click.echo(f"{error}; trying again", err=True)


def _print_whole(found: Mapping[str, Any], seen: Vitals | None) -> None:
    """Print how all of it is going, or all of a tenant's, of which there are no `seen` vitals."""
    more = "" if found["is_exact"] else " or more"
    waits = f"{found['waiting']}{more} deliveries, {found['in_flight']} of them under way"
    if found["oldest_seconds"]:
        waits += f"; the first is due for {found['oldest_seconds']:.0f} s"
    states = ", ".join(f"{number} {state}" for state, number in found["endpoints"].items())
    lines = {
        "waiting": waits,
        "minute": _went(found["last_minute"]),
        "hour": _went(found["last_hour"]),
        "endpoints": states or "none",
    }
    if seen is not None:
        lines["fan-out"] = f"{seen.outbox_events} events wait"
        lines["given up"] = f"{seen.deliveries_dead} deliveries"
        lines["engines"] = f"{seen.engines}"
        if seen.backlog_full:
            lines["backlog"] = "full: emit refuses events"
    for row in found["needy"]:
        lines[f"look at {row['id']}"] = row["reason"] or row["why"]
    print_fields(lines)
    click.echo()


def _went(period: Mapping[str, Any]) -> str:
    """Say how a period went."""
    if not period["attempts"]:
        return "no attempts"
    rate, p95 = period["success_rate"], period["p95_ms"]
    return f"{period['attempts']} attempts, {100 * rate:.3g} % delivered, p95 {plain(p95)} ms"


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """Mark what was not counted to its end, and say what stands in place of a URL."""
    row = {**row, "url": row["url"] or POLLED}
    return row if row["is_exact"] else {**row, "waiting": f"{row['waiting']}+"}


@click.command()
@click.option("--endpoint", "endpoint_id", metavar="ID", help="Only this endpoint's.")
@click.option("--tenant", help="Only this tenant's.")
@click.option("--since", type=MOMENT, help="From this time on, UTC; else the last 60 or 48.")
@click.option("--until", type=MOMENT, help="Up to this time; else up to now.")
@click.option(
    "--by",
    "step",
    type=click.Choice(["minute", "hour"]),
    default="minute",
    show_default=True,
    help="How long a line is; minutes are there for two days.",
)
@as_json
@connected
def numbers(
    settings: Settings,
    endpoint_id: str | None,
    tenant: str | None,
    since: datetime | None,
    until: datetime | None,
    step: Step,
    as_json: bool,
) -> None:
    """Tell how attempts went, a line for each minute or hour: success rate and response times."""
    points = with_database(
        settings,
        lambda db, _: endpoint_numbers(
            db,
            endpoint_id=endpoint_id,
            tenant=tenant,
            since=utc(since),
            until=utc(until),
            step=step,
        ),
    )
    print_rows(points, POINT, as_json=as_json)
