"""Program: the one on this machine that events are sent to, just as an engine would send them."""

import asyncio
import contextlib
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from aetherflow_hooks.config import PostSettings
from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.flow.post import Post
from aetherflow_hooks.model import Endpoint, Event, Secret, Tried
from aetherflow_hooks.rules.addresses import Egress, parse_net
from aetherflow_hooks.rules.urls import parse_url

CONNECT_SECONDS_MAX = 2.0
PROBE_SECONDS = 0.5  # between two tries to reach it
_ID = "ep_000000000000"  # of no endpoint: it stands in the ids of deliveries


class Program:
    """Use it as `async with`."""

    def __init__(self, url: str, secret: str, settings: PostSettings) -> None:
        """Send to `url`, signed with `secret`.

        `localhost:3000/webhook` will do, and so will a port alone.

        Raises:
            InputRefused: no request can be made of the URL.
        """
        if url.isdecimal():
            url = f"localhost:{url}"
        if "://" not in url:
            url = f"http://{url}"
        try:
            host = urlsplit(url).hostname or ""
        except ValueError as error:
            raise InputRefused(f"{url!r} is no URL: {error}") from None
        # Whoever sits at this machine may send to wherever it reaches.
        egress = Egress(
            https_only=False,
            allowed=(parse_net("0.0.0.0/0"), parse_net("[::]/0")),
            names=(host,),
        )
        self._parsed = parse_url(url, egress)
        self._post = Post(settings, egress, None)
        self._endpoint = Endpoint(
            id=_ID,
            shard=0,
            tenant="",
            version=1,
            url=str(self._parsed),
            secrets=(Secret(value=secret, until=None),),
            rate_per_second=None,
            burst=1,
            max_in_flight=1,
            timeout_seconds=settings.timeout_seconds,
            retry_schedule_seconds=(),
        )

    @property
    def url(self) -> str:
        """Where it is, in full."""
        return self._endpoint.url

    async def send(self, event: Event, attempt: int) -> Tried:
        """Make one attempt."""
        return await self._post.try_out(self._endpoint, event, attempt)

    async def is_there(self) -> bool:
        """Tell whether somebody listens there."""
        host = self._parsed.host.strip("[]")
        try:
            async with asyncio.timeout(CONNECT_SECONDS_MAX):
                _, writer = await asyncio.open_connection(host, self._parsed.port)
        except (OSError, TimeoutError):
            return False
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return True

    async def wait_for(self) -> None:
        """Wait until somebody listens there."""
        while True:
            if await self.is_there():
                return
            await asyncio.sleep(PROBE_SECONDS)

    async def __aenter__(self) -> Self:
        await self._post.open(())
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._post.close()
