"""aiohttp: `application.router.add_post("/webhook", endpoint(hooks))`."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from aetherflow_hooks.receive.frameworks import Receives
from aetherflow_hooks.receive.hooks import TOO_LARGE, Answer


def endpoint(receives: Receives) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Make a handler. The application's `client_max_size` is not asked: `body_bytes_max` is."""

    async def handle(request: web.Request) -> web.Response:
        body = bytearray()
        async for part in request.content.iter_any():
            body += part
            if len(body) > receives.body_bytes_max:
                return _written(TOO_LARGE)
        return _written(await receives.receive(bytes(body), request.headers))

    return handle


def _written(answer: Answer) -> web.Response:
    return web.Response(status=answer.status, text=answer.text, headers=answer.headers)
