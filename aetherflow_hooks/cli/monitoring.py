"""monitoring: what a Prometheus, a Grafana and a log reader want to know."""

from importlib.resources import files

import click

from aetherflow_hooks.cli.session import as_json, print_rows
from aetherflow_hooks.config import load
from aetherflow_hooks.watch.log import LogEvent
from aetherflow_hooks.watch.metrics import METRICS
from aetherflow_hooks.web.exposition import PATH

SHIPPED = files("aetherflow_hooks.watch") / "prometheus"
SCRAPE = """\
scrape_configs:
  - job_name: aetherflow-hooks
    metrics_path: {path}
    authorization:
      credentials_file: /etc/prometheus/aetherflow-hooks-token  # of `token add --scope read`
    static_configs:
      - targets: ["{host}:{port}"]
"""


@click.group()
def monitoring() -> None:
    """Print alerts, a dashboard, and what metrics and log events mean."""


@monitoring.command()
def scrape() -> None:
    """Print what Prometheus needs to ask an engine, by the settings."""
    web = load().web
    click.echo(SCRAPE.format(path=PATH, host=web.host, port=web.port or 8080), nl=False)


@monitoring.command()
def alerts() -> None:
    """Print alert rules for Prometheus."""
    click.echo((SHIPPED / "alerts.yaml").read_text("utf-8"), nl=False)


@monitoring.command()
def dashboard() -> None:
    """Print a dashboard for Grafana, to be imported there."""
    click.echo((SHIPPED / "dashboard.json").read_text("utf-8"), nl=False)


@monitoring.command()
@as_json
def metrics(as_json: bool) -> None:
    """List every metric."""
    rows = [
        {
            "name": metric.full_name,
            "kind": str(metric.kind),
            "labels": ", ".join(metric.labels),
            "meaning": metric.help,
        }
        for metric in METRICS.values()
    ]
    print_rows(rows, ("name", "kind", "labels", "meaning"), as_json=as_json)


@monitoring.command()
@as_json
def events(as_json: bool) -> None:
    """List every event of the log."""
    rows = [
        {"name": event.value, "level": event.level, "meaning": event.meaning} for event in LogEvent
    ]
    print_rows(rows, ("name", "level", "meaning"), as_json=as_json)
