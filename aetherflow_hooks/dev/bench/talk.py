"""Talk: the other end of `process.Child`, in the child."""

import asyncio
import gc
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import orjson

GO = "go"


def say(what: object) -> None:
    """Send the parent a line."""
    sys.stdout.buffer.write(orjson.dumps(what) + b"\n")
    sys.stdout.buffer.flush()


async def hear() -> Any:
    """Wait for a line of the parent; None when there will be none any more."""
    loop = asyncio.get_running_loop()
    heard: asyncio.Future[bytes] = loop.create_future()

    def read() -> None:
        line = sys.stdin.buffer.readline()
        loop.call_soon_threadsafe(heard.set_result, line)

    # Of our own, since a child that breaks must not wait for a thread of asyncio's to end.
    threading.Thread(target=read, daemon=True).start()
    line = await heard
    return orjson.loads(line) if line else None


def collect_no_garbage() -> None:
    """Be an instrument: no pause of ours is taken for one of who is measured."""
    gc.collect()
    gc.disable()


def loop_factory(*, uvloop: bool) -> Callable[[], asyncio.AbstractEventLoop]:
    """Choose an event loop.

    Raises:
        ImportError: uvloop is asked for and not installed.
    """
    if not uvloop:
        return asyncio.new_event_loop
    import uvloop as fast  # noqa: PLC0415  an extra

    chosen: Callable[[], asyncio.AbstractEventLoop] = fast.new_event_loop
    return chosen


def run(main: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    """Be a child: take the first line as `main`'s settings, `uvloop` among them, and run it."""
    line = sys.stdin.buffer.readline()
    if not line:
        return
    told = orjson.loads(line)
    with asyncio.Runner(loop_factory=loop_factory(uvloop=told.get("uvloop", False))) as runner:
        runner.run(main(told))
