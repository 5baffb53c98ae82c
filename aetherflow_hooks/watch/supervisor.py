"""Supervisor: what systemd is told, by the protocol of sd_notify(3).

Without systemd, nothing is told to nobody.
"""

import asyncio
import os
import socket
from collections.abc import Callable

FEEDS_PER_TIMEOUT = 3  # so that one that comes late costs nothing


def tell(message: str) -> None:
    """Send one message, such as READY=1, where somebody listens for it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    path = f"\0{address[1:]}" if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifying:
        try:
            notifying.sendto(message.encode(), path)
        except OSError:
            return  # it is not for us to fail since nobody listens any more


def watchdog_seconds() -> float | None:
    """Give the time after which we are taken for dead without a sign of life; None: never."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None  # it is meant for another process
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isascii() and text.isdigit() and int(text) else None


async def feed_watchdog(stuck: Callable[[], list[str]]) -> None:
    """Give signs of life for as long as nothing is `stuck`, until cancelled."""
    seconds = watchdog_seconds()
    if seconds is None:
        return
    while True:
        names = stuck()
        tell(f"STATUS=stuck: {', '.join(names)}" if names else "WATCHDOG=1")
        await asyncio.sleep(seconds / FEEDS_PER_TIMEOUT)
