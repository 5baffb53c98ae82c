"""Hooks: requests are verified, and each event goes to the functions that asked for its type."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, TypeVar, overload

from aetherflow_hooks.errors import BadSignature, InputRefused, NotAWebhook
from aetherflow_hooks.receive import catalogue
from aetherflow_hooks.receive.seen import Seen, SeenBefore, SeenInMemory
from aetherflow_hooks.receive.signatures import TOLERANCE_SECONDS
from aetherflow_hooks.receive.webhook import AnyWebhook, Webhook, read
from aetherflow_hooks.rules.topics import is_pattern, patterns_of

BODY_BYTES_MAX = 2 * 1024 * 1024  # the data of an event has 1 MiB, unless a sender allows more

logger = logging.getLogger("aetherflow_hooks.receive")


class Answer(NamedTuple):
    """What to answer a request with."""

    status: int
    text: str
    retry_after_seconds: int | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Give what stands beside the text."""
        if self.retry_after_seconds is None:
            return {}
        return {"Retry-After": str(self.retry_after_seconds)}


PROCESSED = Answer(200, "Processed")
STORED = Answer(200, "Stored")
ALREADY = Answer(200, "Already processed")
INVALID = Answer(401, "Invalid signature")
UNREADABLE = Answer(400, "Not a webhook")
TOO_LARGE = Answer(413, "Too large")
FAILED = Answer(500, "Processing failed")
BUSY = Answer(503, "Being processed", 1)

Done: TypeAlias = Awaitable[None] | None
D = TypeVar("D")
R = TypeVar("R")


class Registers(Protocol[D]):
    """Takes a function of a webhook, or of a webhook and the connection of its transaction."""

    @overload
    def __call__(self, handler: Callable[[Webhook[D]], R], /) -> Callable[[Webhook[D]], R]: ...
    @overload
    def __call__(
        self, handler: Callable[[Webhook[D], Any], R], /
    ) -> Callable[[Webhook[D], Any], R]: ...


class _Handler(NamedTuple):
    patterns: frozenset[str]
    call: Callable[..., Done]
    is_awaited: bool
    takes_connection: bool


class Hooks:
    """What a receiver does with events, by their types.

    Give it the secret of the endpoint, or several, and functions by `on`; a framework's adapter
    (see `frameworks`) hands it requests and answers with what `receive` gives: 200 for what was
    processed now or before, 401 for what is not signed, 500 where a function raised, which makes
    the sender try again. A type that nobody asked for is answered with 200.

    `seen` knows what was processed before. Without one it is held in this process' memory, which
    forgets with the process and is not shared with others; `SeenInPostgres` does neither.
    """

    def __init__(
        self,
        secret: str | Sequence[str],
        *,
        seen: SeenBefore | None = None,
        tolerance_seconds: float = TOLERANCE_SECONDS,
        body_bytes_max: int = BODY_BYTES_MAX,
    ) -> None:
        """Take what `verify` takes; a body of more than `body_bytes_max` is refused unread."""
        self.body_bytes_max = body_bytes_max
        self._secret = secret
        self._seen = seen or SeenInMemory()
        self._tolerance_seconds = tolerance_seconds
        self._handlers: list[_Handler] = []

    @property
    def is_awaited(self) -> bool:
        """Tell whether an asynchronous framework should call `receive`, or `receive_sync`."""
        if self._seen.is_awaited is not None:
            return self._seen.is_awaited
        return any(handler.is_awaited for handler in self._handlers)

    @overload
    def on(
        self, event_type: Literal["workflow.created"], /
    ) -> Registers[catalogue.WorkflowCreated]: ...
    @overload
    def on(
        self, event_type: Literal["workflow.updated"], /
    ) -> Registers[catalogue.WorkflowUpdated]: ...
    @overload
    def on(
        self, event_type: Literal["workflow.deleted"], /
    ) -> Registers[catalogue.WorkflowDeleted]: ...
    @overload
    def on(
        self, event_type: Literal["workflow.executed"], /
    ) -> Registers[catalogue.WorkflowExecuted]: ...
    @overload
    def on(
        self, event_type: Literal["workflow.completed"], /
    ) -> Registers[catalogue.WorkflowCompleted]: ...
    @overload
    def on(
        self, event_type: Literal["workflow.failed"], /
    ) -> Registers[catalogue.WorkflowFailed]: ...
    @overload
    def on(
        self, event_type: Literal["integration.connected"], /
    ) -> Registers[catalogue.IntegrationConnected]: ...
    @overload
    def on(
        self, event_type: Literal["integration.disconnected"], /
    ) -> Registers[catalogue.IntegrationDisconnected]: ...
    @overload
    def on(
        self, event_type: Literal["integration.error"], /
    ) -> Registers[catalogue.IntegrationError]: ...
    @overload
    def on(self, event_type: Literal["user.invited"], /) -> Registers[catalogue.UserInvited]: ...
    @overload
    def on(self, event_type: Literal["user.joined"], /) -> Registers[catalogue.UserJoined]: ...
    @overload
    def on(
        self, event_type: Literal["billing.updated"], /
    ) -> Registers[catalogue.BillingUpdated]: ...
    @overload
    def on(self, *event_types: str) -> Registers[Any]: ...
    def on(self, *event_types: str) -> Registers[Any]:
        """Have a function called for each event of these types, such as `workflow.*` or `*`.

        It takes the webhook; one with a second parameter takes the connection too, in whose
        transaction the event is marked as processed, so that its own work there is done once or not
        at all. Where several are registered for a type, all are called, in their order. What it
        raises is logged, undone where it has a transaction, and answered with 500.

        Raises:
            InputRefused: a type is none.
        """
        for event_type in event_types:
            if not is_pattern(event_type):
                raise InputRefused(f"{event_type!r} is no event type, and no pattern of types")

        def register(function: Any) -> Any:
            handler = _Handler(
                frozenset(event_types),
                function,
                is_awaited=_is_async(function),
                takes_connection=_takes_connection(function),
            )
            self._handlers.append(handler)
            return function

        return register

    def open(self, body: bytes, headers: Mapping[str, str]) -> AnyWebhook | Answer:
        """Verify and read a request; give what to answer where it is none of ours."""
        if len(body) > self.body_bytes_max:
            return TOO_LARGE
        try:
            return read(body, headers, self._secret, tolerance_seconds=self._tolerance_seconds)
        except BadSignature as refused:
            logger.warning("refused a request: %s", refused)
            return INVALID
        except NotAWebhook as refused:
            logger.warning("refused a signed request: %s", refused)
            return UNREADABLE

    async def receive(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Verify a request, process its event if it is new, and give what to answer."""
        if self._seen.is_awaited is False:  # it would hold up the loop
            return await _in_thread(self.receive_sync, body, headers)
        webhook = self.open(body, headers)
        if isinstance(webhook, Answer):
            return webhook
        try:
            async with self._seen.once(webhook.id) as turn:
                if turn.seen is Seen.NEW:
                    await self.process(webhook, turn.connection)
        except (Exception, asyncio.CancelledError) as error:
            if is_cancelled(error):
                raise
            logger.exception("processing %s %s failed", webhook.type, webhook.id)
            return FAILED
        return _ANSWERS[turn.seen]

    def receive_sync(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Do as `receive` does, where nothing is awaited."""
        webhook = self.open(body, headers)
        if isinstance(webhook, Answer):
            return webhook
        try:
            with self._seen.once_sync(webhook.id) as turn:
                if turn.seen is Seen.NEW:
                    self.process_sync(webhook, turn.connection)
        except Exception:
            logger.exception("processing %s %s failed", webhook.type, webhook.id)
            return FAILED
        return _ANSWERS[turn.seen]

    async def process(self, webhook: AnyWebhook, connection: Any = None) -> None:
        """Call the functions for an event, those that are not awaited in a thread.

        Raises:
            Exception: what one of them raises; those behind it are not called.
        """
        for handler, given in self._calls(webhook, connection):
            if handler.is_awaited:
                done = handler.call(*given)
            elif handler.takes_connection:
                raise TypeError(
                    f"{handler.call!r} takes a connection that is awaited: make it async"
                )
            else:
                done = await _in_thread(handler.call, *given)
            if inspect.isawaitable(done):  # of a wrapper, too
                await done

    def process_sync(self, webhook: AnyWebhook, connection: Any = None) -> None:
        """Call the functions for an event, where nothing is awaited.

        Raises:
            Exception: what one of them raises; those behind it are not called.
        """
        for handler, given in self._calls(webhook, connection):
            if handler.is_awaited:
                raise TypeError(f"{handler.call!r} is async, and nothing is awaited here")
            done = handler.call(*given)
            if inspect.iscoroutine(done):
                done.close()
                raise TypeError(f"{handler.call!r} is async, and nothing is awaited here")

    def _calls(
        self, webhook: AnyWebhook, connection: Any
    ) -> list[tuple[_Handler, tuple[Any, ...]]]:
        patterns = {*patterns_of(webhook.type), "*"}  # here "*" is everything that arrives
        calls: list[tuple[_Handler, tuple[Any, ...]]] = []
        for handler in self._handlers:
            if not handler.patterns & patterns:
                continue
            if handler.takes_connection and connection is None:
                raise TypeError(
                    f"{handler.call!r} takes a connection: give Hooks a SeenInPostgres, or use an "
                    "Inbox"
                )
            given = (webhook, connection) if handler.takes_connection else (webhook,)
            calls.append((handler, given))
        return calls


_ANSWERS = {Seen.NEW: PROCESSED, Seen.DONE: ALREADY, Seen.BUSY: BUSY}


def _is_async(function: Callable[..., Any]) -> bool:
    called = getattr(type(function), "__call__", None)  # noqa: B004  it is the method that matters
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


def is_cancelled(error: BaseException) -> bool:
    """Tell whether this task was cancelled, and not something else that it waited for."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


async def _in_thread(function: Callable[..., R], *given: Any) -> R:
    """Run a function in a thread; it has ended when we have, even where we are cancelled."""
    running = asyncio.ensure_future(asyncio.to_thread(function, *given))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise


def _takes_connection(function: Callable[..., Done]) -> bool:
    positional = [
        one
        for one in inspect.signature(function).parameters.values()
        if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
    ]
    if len(positional) not in (1, 2) or positional[-1].default is not inspect.Parameter.empty:
        raise TypeError(
            f"{function!r} has to take a webhook, or a webhook and a connection, without defaults"
        )
    return len(positional) == 2  # noqa: PLR2004
