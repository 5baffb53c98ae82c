"""status, numbers: how endpoints are doing, and how they did."""

from datetime import datetime
from typing import Any

import click

from aetherflow_hooks.cli.endpoint import POLLED
from aetherflow_hooks.cli.session import (
    MOMENT,
    as_json,
    connected,
    print_rows,
    utc,
    with_database,
)
from aetherflow_hooks.config import Settings
from aetherflow_hooks.manage.numbers import Step, endpoint_numbers
from aetherflow_hooks.manage.pages import ROWS_MAX
from aetherflow_hooks.manage.status import PAGE_ROWS, endpoint_status

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
@as_json
@connected
def status(
    settings: Settings,
    tenant: str | None,
    endpoint_id: str | None,
    after: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Tell how every endpoint is doing: what waits now, and how the last hour went."""
    rows = with_database(
        settings,
        lambda db, _: endpoint_status(
            db, tenant=tenant, endpoint_id=endpoint_id, after=after, rows_max=limit
        ),
    )
    print_rows(rows if as_json else [*map(_shown, rows)], COLUMNS, as_json=as_json)
    if len(rows) == limit and endpoint_id is None:
        click.echo(f"There may be more: --after {rows[-1]['id']}", err=True)


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
