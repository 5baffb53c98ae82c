"""Flask: `application.add_url_rule("/webhook", view_func=endpoint(hooks), methods=["POST"])`."""

import itertools
from collections.abc import Callable

from flask import Response, request
from werkzeug.exceptions import RequestEntityTooLarge

from aetherflow_hooks.receive.frameworks import Receives
from aetherflow_hooks.receive.hooks import TOO_LARGE, Answer

_numbers = itertools.count(1)


def endpoint(receives: Receives) -> Callable[[], Response]:
    """Make a view, of functions that are not awaited, nor what opens their transactions.

    Raises:
        TypeError: something of it is awaited.
    """
    if receives.is_awaited:
        raise TypeError("Flask awaits nothing: use functions and a database that are not async")

    def webhook() -> Response:
        request.max_content_length = receives.body_bytes_max
        try:
            body = request.get_data()  # which something may have read before
        except RequestEntityTooLarge:
            return _written(TOO_LARGE)
        return _written(receives.receive_sync(body, dict(request.headers)))

    webhook.__name__ = f"webhook_{next(_numbers)}"  # Flask's name of it, if it is given none
    return webhook


def _written(answer: Answer) -> Response:
    return Response(
        answer.text, status=answer.status, headers=answer.headers, mimetype="text/plain"
    )
