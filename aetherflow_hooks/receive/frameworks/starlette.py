"""FastAPI and Starlette: `application.add_route("/webhook", endpoint(hooks), methods=["POST"])`."""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse

from aetherflow_hooks.receive.frameworks import Receives
from aetherflow_hooks.receive.hooks import TOO_LARGE, Answer


def endpoint(receives: Receives) -> Callable[[Request], Awaitable[PlainTextResponse]]:
    """Make an endpoint."""

    async def handle(request: Request) -> PlainTextResponse:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > receives.body_bytes_max:
                return _written(TOO_LARGE)
        return _written(await receives.receive(bytes(body), request.headers))

    return handle


def _written(answer: Answer) -> PlainTextResponse:
    return PlainTextResponse(answer.text, status_code=answer.status, headers=answer.headers)
