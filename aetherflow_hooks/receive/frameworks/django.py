"""Django: `urlpatterns = [path("webhook", endpoint(hooks))]`."""

from collections.abc import Awaitable, Callable

from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.views.decorators.csrf import csrf_exempt

from aetherflow_hooks.receive.frameworks import Receives
from aetherflow_hooks.receive.hooks import Answer


def endpoint(
    receives: Receives,
) -> Callable[[HttpRequest], HttpResponse | Awaitable[HttpResponse]]:
    """Make a view: an asynchronous one where what processes the events is awaited.

    So let the functions be registered before. It is exempt from the check of a CSRF token, which no
    other server can have, and from ATOMIC_REQUESTS: an answer of 500 would commit what has failed.
    """

    async def awaited(request: HttpRequest) -> HttpResponse:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        return _written(await receives.receive(_body(receives, request), dict(request.headers)))

    def view(request: HttpRequest) -> HttpResponse:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        return _written(receives.receive_sync(_body(receives, request), dict(request.headers)))

    made: Callable[[HttpRequest], HttpResponse | Awaitable[HttpResponse]]
    made = csrf_exempt(awaited if receives.is_awaited else view)
    for alias in connections:
        made = transaction.non_atomic_requests(using=alias)(made)
    return made


def _body(receives: Receives, request: HttpRequest) -> bytes:
    body: bytes = request.read(receives.body_bytes_max + 1)  # one more is too much
    return body


def _written(answer: Answer) -> HttpResponse:
    return HttpResponse(
        answer.text, status=answer.status, headers=answer.headers, content_type="text/plain"
    )
