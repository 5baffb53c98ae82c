"""demo: the main job, before one's eyes."""

import asyncio
import sys

import click

from aetherflow_hooks.cli.run import stop_on_signals
from aetherflow_hooks.cli.session import print_rows, reachable
from aetherflow_hooks.config import Settings, load
from aetherflow_hooks.dev.demo import TENANT, Arrival, Demo
from aetherflow_hooks.watch import log

COLUMNS = ("event", "id", "signature", "attempt", "ms from commit")


@click.command()
@click.option("--dsn", help="Which Postgres; the embedded one unless it is given here.")
@click.option("--once", is_flag=True, help="End when all have arrived: 0, or 1 if any has not.")
def demo(dsn: str | None, once: bool) -> None:
    """Watch one event of each type arrive, signed and verified."""
    # A DSN of the environment is somebody's real database, not meant for twelve made-up events.
    settings = load(environment={}, given={"profile": "development"}).with_dsn(dsn or "")
    log.set_up("warning", settings.log.form)
    if not asyncio.run(_demo(settings, once=once)):
        click.echo("error: not every event arrived and was verified", err=True)
        sys.exit(1)


async def _demo(settings: Settings, *, once: bool) -> bool:
    stopping = stop_on_signals()
    async with reachable(settings) as named, Demo(named) as running:
        click.echo(f"A receiver listens at {running.url}, an engine delivers. Twelve events:\n")
        arrivals = await running.emit_all()
        print_rows([_row(arrival) for arrival in arrivals], COLUMNS, as_json=False)
        complete = all(arrival.verified for arrival in arrivals)
        delivered = sum(arrival.verified for arrival in arrivals)
        click.echo(f"\n{delivered} of {len(arrivals)} delivered and verified.")
        if once or stopping.is_set():
            return complete
        click.echo(
            f"\nThe dashboard is at {running.dashboard_url}, and this token opens it until the "
            f"demo ends:\n  {running.token}\n"
            "\nEmit more from another terminal:\n"
            "  aetherflow-hooks emit workflow.completed "
            f"""'{{"workflow": {{"id": "wf_abc123"}}}}' --tenant {TENANT}\n"""
            "Ctrl-C ends the demo."
        )
        running.on_arrival = lambda arrival: click.echo(
            f"{arrival.event}  {arrival.id}  {arrival.signature}"
        )
        await stopping.wait()
        return complete


def _row(arrival: Arrival) -> dict[str, object]:
    return {
        "event": arrival.event,
        "id": arrival.id,
        "signature": arrival.signature,
        "attempt": arrival.attempt,
        "ms from commit": arrival.took_ms,
    }
