"""Flask: `application.add_url_rule("/webhook", view_func=endpoint(hooks), methods=["POST"])`."""

from collections.abc import Callable

from flask import Response, request

from aetherflow_hooks.receive.frameworks import Receives


def endpoint(receives: Receives) -> Callable[[], Response]:
    """Make a view."""

    def webhook() -> Response:
        body = request.stream.read(receives.body_bytes_max + 1)  # one more is too much
        answer = receives.receive_sync(body, dict(request.headers))
        return Response(
            answer.text, status=answer.status, headers=answer.headers, mimetype="text/plain"
        )

    return webhook
