"""Topics: event types, the patterns that choose among them, and AetherFlow's catalogue."""

import re

TYPE = re.compile(r"[A-Za-z0-9_.-]{1,128}")

CATALOGUE: dict[str, str] = {
    "workflow.created": "A workflow was created.",
    "workflow.updated": "A workflow's configuration changed.",
    "workflow.deleted": "A workflow was deleted.",
    "workflow.executed": "A workflow started to run.",
    "workflow.completed": "A workflow ran to its end.",
    "workflow.failed": "A run of a workflow failed.",
    "integration.connected": "An integration was connected.",
    "integration.disconnected": "The connection of an integration was lost.",
    "integration.error": "An integration reported an error.",
    "user.invited": "Somebody was invited to the team.",
    "user.joined": "Somebody joined the workspace.",
    "billing.updated": "Billing information changed.",
}
"""The event types of AetherFlow, known from the start, with what each one tells."""


DELIVERY_EXHAUSTED = "aetherflow.delivery.exhausted"
ENDPOINT_FAILING = "aetherflow.endpoint.failing"
ENDPOINT_DISABLED = "aetherflow.endpoint.disabled"
ENDPOINT_RECOVERED = "aetherflow.endpoint.recovered"
_OPERATIONAL = "aetherflow."


def is_operational(event_type: str) -> bool:
    """Tell whether a type is ours: it tells operators how their webhooks are doing."""
    return event_type.startswith(_OPERATIONAL)


def is_type(text: str) -> bool:
    """Tell whether `text` can be an event type: 1 to 128 of `A-Z a-z 0-9 _ . -`."""
    return TYPE.fullmatch(text) is not None


def is_pattern(text: str) -> bool:
    """Tell whether `text` can choose types: `*`, a type, or the start of one and `.*`.

    >>> [is_pattern(text) for text in ("*", "user.joined", "user.*", "us*", "")]
    [True, True, True, False, False]
    """
    return text == "*" or is_type(text.removesuffix(".*"))


def patterns_of(event_type: str) -> list[str]:
    """List every pattern that chooses `event_type`; the SQL function of this name does the same.

    What is told to operators has to be asked for: it is not among `*`.

    >>> patterns_of("a.b.c")
    ['*', 'a.b.c', 'a.*', 'a.b.*']
    >>> patterns_of("aetherflow.endpoint.disabled")
    ['aetherflow.endpoint.disabled', 'aetherflow.*', 'aetherflow.endpoint.*']
    """
    parts = event_type.split(".")
    starts = [".".join(parts[:count]) + ".*" for count in range(1, len(parts))]
    everything = [] if is_operational(event_type) else ["*"]
    return [*everything, event_type, *starts]
