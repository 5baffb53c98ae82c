"""run and migrate: the daemon, and its schema."""

import asyncio
import gc
import resource
import signal
from collections.abc import Callable

import click

from aetherflow_hooks.cli.session import connected, reachable
from aetherflow_hooks.config import Settings
from aetherflow_hooks.db import migrate as migrate_database
from aetherflow_hooks.engine import start_engine
from aetherflow_hooks.watch import traces
from aetherflow_hooks.watch.supervisor import feed_watchdog, tell

GARBAGE_THRESHOLD = 20_000  # objects made and not freed between two looks for garbage


@click.command()
@click.option(
    "--restored", is_flag=True, help="Send nothing before `restore accept`: this is a copy."
)
@connected
def run(settings: Settings, restored: bool) -> None:
    """Deliver, as a daemon. SIGTERM and Ctrl-C drain; a second one ends at once."""
    # What is in memory holds secrets, and is not to be written to a file.
    if settings.traces.enabled:
        traces.set_up()
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with asyncio.Runner(loop_factory=_fast_loop()) as runner:
        runner.run(_run(settings, restored=restored))


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Choose uvloop where it is installed, which is on Linux; else asyncio's own loop."""
    try:
        import uvloop  # noqa: PLC0415  it may not be there
    except ImportError:
        return None
    loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return loop


async def _run(settings: Settings, *, restored: bool) -> None:
    stopping = stop_on_signals()
    async with reachable(settings) as named, start_engine(named, restored=restored) as engine:
        # Whatever is there by now stays. To look through it for garbage takes 20 ms each time, in
        # which nothing is sent.
        gc.collect()
        gc.freeze()
        # By its default a collection comes with every 700 deliveries, and takes 3 % of the time.
        gc.set_threshold(GARBAGE_THRESHOLD)
        tell("READY=1")
        feeding = asyncio.create_task(feed_watchdog(engine.stuck))
        try:
            await stopping.wait()
            tell("STOPPING=1")
            await engine.stop()
        finally:
            feeding.cancel()


def stop_on_signals() -> asyncio.Event:
    """Give an event that SIGTERM and Ctrl-C set; the next such signal does what it always does."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def stop() -> None:
        stopping.set()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    return stopping


@click.command()
@connected
def migrate(settings: Settings) -> None:
    """Create or upgrade the schema. Safe to run at once from several places."""
    for name in asyncio.run(_migrate(settings)) or ["nothing to do"]:
        click.echo(name)


async def _migrate(settings: Settings) -> list[str]:
    async with reachable(settings) as named:
        return await migrate_database(named)
