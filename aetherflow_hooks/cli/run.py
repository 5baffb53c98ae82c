"""run and migrate: the daemon, and its schema."""

import asyncio
import gc
import resource
import signal
import sys
import time
from collections.abc import Callable

import click

from aetherflow_hooks.cli.session import READ_ANEW, connected, reachable
from aetherflow_hooks.config import Settings
from aetherflow_hooks.db import migrate as migrate_database
from aetherflow_hooks.db import pending
from aetherflow_hooks.engine import Engine, start_engine
from aetherflow_hooks.errors import HooksError, InputRefused
from aetherflow_hooks.watch import log, traces
from aetherflow_hooks.watch.supervisor import feed_watchdog, tell

GARBAGE_THRESHOLD = 20_000  # objects made and not freed between two looks for garbage


@click.command()
@click.option(
    "--restored", is_flag=True, help="Send nothing before `restore accept`: this is a copy."
)
@connected
def run(settings: Settings, restored: bool) -> None:
    """Deliver, as a daemon.

    SIGTERM and Ctrl-C drain; a second one ends at once. SIGHUP reads the settings anew, unless it
    runs in a terminal: those of the log, of retries and the defaults of endpoints change, and the
    log names others that need a restart.
    """
    # What is in memory holds secrets, and is not to be written to a file.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if settings.traces.enabled:
        traces.set_up()
    if not sys.stderr.isatty():  # else the terminal is gone, and so is who has started it
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to change
    read_anew = click.get_current_context().meta[READ_ANEW]
    with asyncio.Runner(loop_factory=_fast_loop()) as runner:
        runner.run(_run(settings, read_anew, restored=restored))


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Choose uvloop where it is installed, which is on Linux; else asyncio's own loop."""
    try:
        import uvloop  # noqa: PLC0415  it may not be there
    except ImportError:
        return None
    loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return loop


async def _run(settings: Settings, read_anew: Callable[[], Settings], *, restored: bool) -> None:
    stopping = stop_on_signals()
    async with reachable(settings) as named, start_engine(named, restored=restored) as engine:
        # Whatever is there by now stays. To look through it for garbage takes 20 ms each time, in
        # which nothing is sent.
        gc.collect()
        gc.freeze()
        # By its default a collection comes with every 700 deliveries, and takes 3 % of the time.
        gc.set_threshold(GARBAGE_THRESHOLD)
        reloads = Reloads(engine, lambda: named.completing(read_anew()))
        if not sys.stderr.isatty():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reloads.ask)
        tell("READY=1")
        feeding = asyncio.create_task(feed_watchdog(engine.stuck))
        try:
            await stopping.wait()
            tell("STOPPING=1")
            await engine.stop()
        finally:
            feeding.cancel()
            reloads.stop()


class Reloads:
    """Lets an engine go by settings that are read anew, one time after the other."""

    def __init__(self, engine: Engine, read_anew: Callable[[], Settings]) -> None:
        """Wait to be asked."""
        self._engine = engine
        self._read_anew = read_anew
        self._task: asyncio.Task[None] | None = None
        self._asked = False

    def ask(self) -> None:
        """Read them, now or after the time that is under way."""
        self._asked = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._reload())

    def stop(self) -> None:
        """End what is under way."""
        if self._task is not None:
            self._task.cancel()

    async def _reload(self) -> None:
        while self._asked:
            self._asked = False
            tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            try:
                settings = self._read_anew()
                log.set_up(settings.log.level, settings.log.form)
                await self._engine.reload(settings)
            except HooksError as error:
                log.log.error(log.LogEvent.SETTINGS_REFUSED, error=str(error))
            tell("READY=1")


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
@click.option("--plan", is_flag=True, help="Tell what would be done, and who waits; do nothing.")
@connected
def migrate(settings: Settings, plan: bool) -> None:
    """Create or upgrade the schema. Safe to run at once from several places, while engines run."""
    if plan:
        for name, locks in asyncio.run(_plan(settings)).items() or [("nothing to do", {})]:
            held = ", ".join(f"{table} ({lock})" for table, lock in locks.items())
            click.echo(f"{name}: locks {held}" if held else name)
        return
    for name in asyncio.run(_migrate(settings)) or ["nothing to do"]:
        click.echo(name)


async def _plan(settings: Settings) -> dict[str, dict[str, str]]:
    if not settings.database.dsn:
        raise InputRefused("name a database: the embedded one is migrated whenever it is used")
    return await pending(settings.database)


async def _migrate(settings: Settings) -> list[str]:
    async with reachable(settings) as named:
        return await migrate_database(named)
