"""monitoring: what a Prometheus and a Grafana want to know."""

from importlib.resources import files

import click

from aetherflow_hooks.config import load
from aetherflow_hooks.web.exposition import PATH

SHIPPED = files("aetherflow_hooks.watch") / "prometheus"
SCRAPE = """\
scrape_configs:
  - job_name: aetherflow-hooks
    scheme: {scheme}
    metrics_path: {path}
    authorization:
      credentials_file: /etc/prometheus/aetherflow-hooks-token  # of `token add --scope read`
    static_configs:
      - targets: ["{host}:{port}"]
"""


@click.group()
def monitoring() -> None:
    """Print what lets a Prometheus and a Grafana watch engines; see `help metrics` too."""


@monitoring.command()
def scrape() -> None:
    """Print what Prometheus needs to ask an engine, by the settings."""
    web = load().web
    host = f"[{web.host}]" if ":" in web.host else web.host
    scheme = "https" if web.certificate_file else "http"
    port = web.port or 8080
    click.echo(SCRAPE.format(scheme=scheme, path=PATH, host=host, port=port), nl=False)


@monitoring.command()
def alerts() -> None:
    """Print alert rules for Prometheus."""
    click.echo((SHIPPED / "alerts.yaml").read_text("utf-8"), nl=False)


@monitoring.command()
def dashboard() -> None:
    """Print a dashboard for Grafana, to be imported there."""
    click.echo((SHIPPED / "dashboard.json").read_text("utf-8"), nl=False)
