"""bench: how fast, how soon and at what cost, here."""

import asyncio
from pathlib import Path

import click

from aetherflow_hooks.cli.session import as_json
from aetherflow_hooks.config import load
from aetherflow_hooks.watch import log

LEGS = (
    *("drain", "shapes", "latency", "wide", "backlog", "dead"),
    *("hostile", "history", "dashboard", "retention", "watch", "pinned", "soak"),
)


@click.command()
@click.argument("legs", nargs=-1, type=click.Choice(LEGS), metavar="[LEG]...")
@click.option("--dsn", help="Which Postgres; the embedded one unless it is given here.")
@click.option(
    "--rounds", type=click.IntRange(1, 100), help="How often each contender has its turn."
)
@click.option("--events", type=click.IntRange(100, 10_000_000), help="How many a drain has.")
@click.option(
    "--minutes", type=click.FloatRange(0.05, 600), help="How long `pinned` and `soak` load."
)
@click.option("--quick", is_flag=True, help="A little of everything, to see that it works.")
@click.option("--own-receiver", is_flag=True, help="Use our own receiver where there is nginx too.")
@click.option(
    "--plots",
    type=click.Path(path_type=Path, file_okay=False),
    help="Draw SVG files into this folder.",
)
@as_json
def bench(
    legs: tuple[str, ...],
    dsn: str | None,
    rounds: int | None,
    events: int | None,
    minutes: float | None,
    quick: bool,
    own_receiver: bool,
    plots: Path | None,
    as_json: bool,
) -> None:
    """Measure rate, latency and cost beside what else does the same job.

    LEGs are drain (stored events, beside a bare HTTP loop and other queues), shapes (few and many
    endpoints), latency (commit to first byte), wide (one event for 100,000 endpoints), backlog (10
    million waiting), dead (5,000 endpoints that do not answer), hostile (132 that drip, flood, bomb
    and lie), history (30 days), dashboard (its pages over 10 million attempts, and what it costs),
    retention (10 million rows that go), watch (rows of a table that become events), pinned (an old
    snapshot) and soak (10 minutes of full load). Without any, the first three: some 15 minutes.

    Databases of its own are made on that Postgres and dropped; nothing else is touched.
    """
    # Nothing of it is needed by the other commands, so they do not wait for it.
    from aetherflow_hooks.dev.bench import plan, plot, report, suite  # noqa: PLC0415

    given = {"rounds": rounds, "events": events, "load_minutes": minutes}
    chosen = plan.replace_given(plan.QUICK if quick else plan.Plan(), given)
    # A DSN of the environment is somebody's real database.
    settings = load(environment={}, given={"profile": "development", "log": {"level": "warning"}})
    log.set_up("warning", settings.log.form)
    if plots is not None:
        plot.check()  # before it takes an hour
    measured = asyncio.run(
        suite.run(
            chosen,
            legs or suite.SHORT,
            settings=settings,
            dsn=dsn,
            own_receiver=own_receiver,
            say=lambda line: click.echo(line, err=True),
        )
    )
    click.echo(report.as_json(measured) if as_json else report.as_text(measured))
    if plots is not None:
        for file in plot.draw(measured["legs"], plots):
            click.echo(f"drawn: {file}", err=True)
