"""Attempts: one wide line in the log for each, or for some of those that delivered."""

from aetherflow_hooks.config import LogSettings
from aetherflow_hooks.model import (
    Answered,
    Blocked,
    Delivered,
    Delivery,
    Endpoint,
    Event,
    GiveUp,
    NotReached,
    Outcome,
    RetryIn,
    Verdict,
)
from aetherflow_hooks.rules.states import OUTCOME_WORDS, VERDICT_WORDS
from aetherflow_hooks.watch.log import LogEvent, log, wants_info


class AttemptLog:
    """Writes a line for each attempt that is to have one."""

    def __init__(self, settings: LogSettings) -> None:
        """Write all that fails, and of what delivers one in `delivered_every`."""
        self.settings = settings
        self._passed_over = 0  # since the last line of one that delivered

    def saw(
        self,
        endpoint: Endpoint,
        delivery: Delivery,
        event: Event,
        outcome: Outcome,
        verdict: Verdict,
        duration_ms: int,
    ) -> None:
        """Write of an attempt, if anybody wants to read of it."""
        if not wants_info() or (isinstance(verdict, Delivered) and self._is_passed_over()):
            return
        told: dict[str, object] = {}
        if isinstance(outcome, Answered):
            told["status"] = outcome.status
        elif isinstance(outcome, NotReached):
            told["error"] = outcome.reason
        elif isinstance(outcome, Blocked):
            told["error"] = outcome.detail
        if isinstance(verdict, RetryIn):
            told["retry_in_seconds"] = round(verdict.seconds, 3)
        elif isinstance(verdict, GiveUp):
            told["reason"] = str(verdict.reason)
        log.info(
            LogEvent.POST_DONE,
            delivery=delivery.id,
            event_type=event.type,
            endpoint=endpoint.id,
            tenant=endpoint.tenant,
            attempt=delivery.attempt,
            outcome=OUTCOME_WORDS[type(outcome)],
            verdict=VERDICT_WORDS[type(verdict)],
            took_ms=duration_ms,
            **told,
        )

    def _is_passed_over(self) -> bool:
        """Tell whether one that delivered has no line; those in between are counted."""
        self._passed_over += 1
        every = self.settings.delivered_every
        if not every or self._passed_over < every:
            return True
        self._passed_over = 0
        return False
