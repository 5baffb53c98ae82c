"""status: how every endpoint is doing."""

import click

from aetherflow_hooks.cli.session import as_json, connected, print_rows, with_database
from aetherflow_hooks.config import Settings
from aetherflow_hooks.manage.status import endpoint_status

COLUMNS = (
    "id", "state", "waiting", "in_flight", "oldest_seconds", "attempts", "success_rate", "p50_ms",
    "p95_ms", "url",
)  # fmt: skip


@click.command()
@click.option("--tenant", help="Only this tenant's endpoints.")
@as_json
@connected
def status(settings: Settings, tenant: str | None, as_json: bool) -> None:
    """Tell how every endpoint is doing: what waits now, and how the last hour went."""
    rows = with_database(settings, lambda db, _: endpoint_status(db, tenant=tenant))
    print_rows(rows, COLUMNS, as_json=as_json)
