"""Shapes: what stands in requests and answers, with what the API's document says of it."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BeforeValidator, ConfigDict, Field

from aetherflow_hooks.manage.attempts import STATUS, TEXT_MAX
from aetherflow_hooks.manage.endpoints import (
    IN_FLIGHT_MAX,
    PATTERNS_MAX,
    RATE_MAX,
    RETRIES_MAX,
    RETRY_PAUSE_SECONDS_MAX,
    TIMEOUT_SECONDS,
)
from aetherflow_hooks.manage.pages import ROWS_DEFAULT, ROWS_MAX
from aetherflow_hooks.manage.polls import LEASE_SECONDS, LEASE_SECONDS_DEFAULT
from aetherflow_hooks.manage.secrets import OVERLAP_SECONDS_DEFAULT, OVERLAP_SECONDS_MAX
from aetherflow_hooks.manage.sessions import LINK_SECONDS, LINK_SECONDS_DEFAULT
from aetherflow_hooks.manage.tokens import NAME_MAX, Scope
from aetherflow_hooks.model import EndpointState
from aetherflow_hooks.rules.states import State
from aetherflow_hooks.rules.versions import EXPRESSION_CHARACTERS_MAX
from aetherflow_hooks.rules.words import ENDPOINT_CHANNELS_MAX, EVENT_CHANNELS_MAX, LABELS_MAX, WORD
from aetherflow_hooks.web.live import WAITING_MAX
from aetherflow_hooks.web.routes import IDS, Shape

BATCH_MAX = 1_000


def _read_moment(value: object) -> object:
    """Read a time; a number is none, though it might be seconds or milliseconds since 1970."""
    try:
        return datetime.fromisoformat(str(value))
    except ValueError:
        raise ValueError("a time is written as 2026-01-31T12:00:00Z") from None


Moment = Annotated[AwareDatetime, BeforeValidator(_read_moment)]

Text = Annotated[str, Field(max_length=256)]
Tenant = Annotated[str, Field(max_length=256, description="Whose; empty where there are none.")]
Pattern = Annotated[
    str, Field(max_length=130, description="A type, user.joined, or the start of some, user.*")
]
Limit = Annotated[int, Field(ge=1, le=ROWS_MAX, description="At most so many.")]
EndpointId = Annotated[str, Field(pattern=f"^{IDS['endpoint_id']}$")]
Before = Annotated[
    str | None,
    Field(max_length=100, description="Where the last page has ended: its `before`."),
]
GoOn = Annotated[
    str | None, Field(description="Where to go on, as `before`; null: there is nothing more.")
]


class Answer(Shape):
    """What is given; every member is there."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)


class OfTenant(Shape):
    """A list of one tenant's things, or of all."""

    tenant: Text | None = Field(None, description="Only what is of this tenant.")


class Listed(OfTenant):
    """A list that goes on."""

    before: Before = None
    limit: Limit = ROWS_DEFAULT


class Named(Answer):
    """The id of what was made or changed."""

    id: str


# Endpoints.

Headers = dict[Annotated[str, Field(max_length=128)], Annotated[str, Field(max_length=8_192)]]
Events = Annotated[
    list[Pattern],
    Field(min_length=1, max_length=PATTERNS_MAX, description="Which types it wants; *: all."),
]
Schedule = Annotated[
    list[Annotated[float, Field(ge=0, le=RETRY_PAUSE_SECONDS_MAX)]],
    Field(max_length=RETRIES_MAX, description="The pause before each retry."),
]
Rate = Annotated[float, Field(ge=0.001, le=RATE_MAX)]
Burst = Annotated[int, Field(ge=1, le=IN_FLIGHT_MAX)]
InFlight = Annotated[int, Field(ge=1, le=IN_FLIGHT_MAX)]
Timeout = Annotated[float, Field(ge=TIMEOUT_SECONDS[0], le=TIMEOUT_SECONDS[1])]
Ordering = Literal["skip", "block"]
Preset = Literal["default", "standard", "none"]
Filter = Annotated[
    str, Field(max_length=2_000, description="Only events whose data says so: $.amount > 100.")
]
Word = Annotated[str, Field(pattern=f"^{WORD}$")]
Labels = Annotated[list[Word], Field(max_length=LABELS_MAX)]
Channels = Annotated[
    list[Word],
    Field(max_length=ENDPOINT_CHANNELS_MAX, description="Only events on one of these; none: all."),
]
PayloadVersion = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
        description="It gets data as it was up to this version, 2024-06-01; null: as it is.",
    ),
]
Metadata = Annotated[
    dict[str, str | int | float],
    Field(description="An object of the application's own, never sent: strings and numbers."),
]
Url = Annotated[str, Field(min_length=1, max_length=2_048)]


class EndpointLimits(Shape):
    """What an endpoint is held to; null stands for the setting, or for no limit."""

    rate_per_second: Rate | None = None
    burst: Burst = Field(1, description="POSTs that may go at once after a rest.")
    max_in_flight: InFlight | None = Field(None, description="POSTs under way at once.")
    timeout_seconds: Timeout | None = Field(None, description="The whole attempt.")
    retry_schedule_seconds: Schedule | Preset | None = Field(
        None, description="Pauses, or the name of a schedule."
    )


class NewEndpointShape(EndpointLimits):
    """An endpoint that is to be."""

    url: Url | None = Field(None, description="Where to POST; not for one that is polled.")
    polled: bool = Field(
        False, description="It asks for its deliveries by GET /poll, and nothing is posted to it."
    )
    events: Events = Field(default=["*"])
    tenant: Tenant = ""
    description: Text = ""
    secret: str | None = Field(
        None, max_length=256, description="One of your own, in place of a new one."
    )
    ed25519: bool = Field(False, description="Sign with a new pair of keys instead.")
    headers: Headers = Field(default={}, description="Headers of its own beside ours.")
    certificate: str | None = Field(
        None, max_length=65_536, description="A PEM that we show to it, with its private key."
    )
    ordering: Ordering | None = Field(
        None, description="What follows of a key when one is given up."
    )
    filter: Filter | None = None
    channels: Channels = Field(default=[])
    payload_version: PayloadVersion | None = None
    traced: bool = Field(False, description="Its requests carry `traceparent`.")
    labels: Labels = Field(default=[])
    metadata: Metadata = Field(default={})


class EndpointChangeShape(Shape):
    """What an endpoint is to be from now on; what is not there stays."""

    url: Url | None = None
    events: Events | None = None
    description: Text | None = None
    headers: dict[str, str | None] | None = Field(
        None, description="Only those that are named; null takes one away."
    )
    rate_per_second: Rate | None = None
    burst: Burst | None = None
    max_in_flight: InFlight | None = None
    timeout_seconds: Timeout | None = None
    retry_schedule_seconds: Schedule | Preset | None = None
    ordering: Ordering | None = None
    filter: Filter | None = None
    channels: Channels | None = None
    payload_version: PayloadVersion | None = None
    traced: bool | None = None
    labels: Labels | None = None
    metadata: Metadata | None = None
    version: int | None = Field(None, description="Only if it is at this version still.")


class EndpointShape(Answer):
    """An endpoint, without its secret."""

    id: str
    tenant: str
    version: int = Field(description="It rises with every change.")
    url: str = Field(description="Empty where it is polled.")
    polled: bool
    secret_waits: bool = Field(description="A new secret waits to be promoted.")
    description: str
    state: EndpointState
    state_reason: str = Field(description="Why, where an engine put it there.")
    failing_since: AwareDatetime | None
    events: list[str]
    headers: list[str] = Field(description="The names of its own headers.")
    public_keys: list[str]
    certificate: str | None = Field(description="The subject of what it is shown.")
    certificate_expires_at: AwareDatetime | None
    rate_per_second: float | None
    burst: int
    max_in_flight: int | None
    timeout_seconds: float | None
    retry_schedule_seconds: list[float] | None
    ordering: str | None
    filter: str | None = Field(description="As Postgres writes it.")
    channels: list[str]
    payload_version: str | None
    traced: bool
    labels: list[str]
    metadata: dict[str, str | int | float]
    created_at: AwareDatetime
    updated_at: AwareDatetime


class AddedEndpointShape(EndpointShape):
    """An endpoint that was added, with its secret, this once."""

    secret: str | None = Field(description="Null where it signs with a pair of keys.")


class EndpointsPage(Answer):
    """Some endpoints."""

    items: list[EndpointShape]
    before: GoOn


class EndpointsQuery(Listed):
    """Which endpoints."""

    label: Word | None = Field(None, description="Only those that have it.")


class NewStateShape(Shape):
    """The state that an endpoint is to have."""

    state: EndpointState = Field(description="active, paused or disabled")


class RotationShape(Shape):
    """How a secret is replaced."""

    secret: str | None = Field(None, max_length=256, description="One of your own.")
    ed25519: bool | None = Field(None, description="A new pair of keys.")
    leads: bool = Field(True, description="X-AetherFlow-Signature is made with it at once.")
    overlap_seconds: float = Field(OVERLAP_SECONDS_DEFAULT, ge=0, le=OVERLAP_SECONDS_MAX)


class PromotionShape(Shape):
    """How a secret that waits takes over."""

    overlap_seconds: float = Field(OVERLAP_SECONDS_DEFAULT, ge=0, le=OVERLAP_SECONDS_MAX)


class NewSecretShape(Answer):
    """A new secret, this once."""

    id: str
    secret: str | None
    public_key: str | None


class CertificateShape(Shape):
    """What an endpoint is to be shown."""

    certificate: str = Field(max_length=65_536, description="A PEM, with its private key.")


class TrialShape(Shape):
    """What is sent to try an endpoint out."""

    type: str | None = Field(None, max_length=128)
    data: dict[str, Any] = Field(default={"test": True})


class RequestShape(Answer):
    """A request as it was sent."""

    headers: dict[str, str]
    body: str


class TriedShape(Answer):
    """What was sent to try an endpoint out, and what came of it."""

    endpoint_id: str
    url: str
    trigger: str
    event_id: str
    type: str
    request: RequestShape
    outcome: str
    status: int | None
    error: str | None
    duration_ms: int
    response: str = Field(description="The start of the answer; bytes that are no text as \\xff.")


# Events.


class NewEventShape(Shape):
    """An event that is to be emitted."""

    type: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")
    data: dict[str, Any] = Field(description="Sent on byte for byte as it stands here.")
    tenant: Tenant = ""
    idempotency_key: str | None = Field(None, min_length=1, max_length=256)
    deliver_at: Moment | None = None
    expires_at: Moment | None = None
    ordering_key: str | None = Field(None, max_length=256)
    channels: list[Word] = Field(
        default=[],
        max_length=EVENT_CHANNELS_MAX,
        description="Endpoints with channels get it only if they have one of these.",
    )
    validate_data: bool = Field(
        False, alias="validate", description="Only if the data fits the schema of the type."
    )


class BatchShape(Shape):
    """Events that are emitted together, all or none."""

    events: list[NewEventShape] = Field(min_length=1, max_length=BATCH_MAX)


class EmittedShape(Answer):
    """The ids of events, in their order."""

    ids: list[str]


class EventsQuery(Listed):
    """Which events."""

    type: Pattern | None = None
    channel: Word | None = Field(None, description="Only those that are on it.")
    since: Moment | None = Field(None, description="Emitted then or later.")
    until: Moment | None = Field(None, description="Emitted earlier.")


class EventRow(Answer):
    """An event, without its data."""

    id: str
    tenant: str
    type: str
    emitted_at: AwareDatetime
    deliver_at: AwareDatetime | None
    expires_at: AwareDatetime | None
    ordering_key: str | None
    channels: list[str]
    data_bytes: int


class EventsPage(Answer):
    """Some events, the newest first; it may be empty and have more behind it."""

    items: list[EventRow]
    before: GoOn
    as_of: AwareDatetime = Field(description="When they were listed, by the clock of Postgres.")


class DeliveryOfEvent(Answer):
    """What became of an event at an endpoint."""

    id: str
    endpoint_id: str
    event_id: str
    state: State
    attempts: int
    due_at: AwareDatetime | None
    reason: str | None
    last_status: int | None
    last_error: str | None
    last_at: AwareDatetime | None


class EventQuery(Shape):
    """Which deliveries of an event."""

    after: EndpointId | None = Field(None, description="Those of endpoints behind this one.")


class EventShape(Answer):
    """An event with its data, and what became of it."""

    id: str
    tenant: str
    type: str
    emitted_at: AwareDatetime
    deliver_at: AwareDatetime | None
    expires_at: AwareDatetime | None
    ordering_key: str | None
    channels: list[str]
    data: str | None = Field(description="The JSON text as it was given; null: it was expunged.")
    expunged_at: AwareDatetime | None
    cancelled_at: AwareDatetime | None
    is_fanned_out: bool
    deliveries: list[DeliveryOfEvent]
    after: str | None = Field(description="There may be more behind this endpoint.")


# Event types.

JsonText = Annotated[str, Field(max_length=65_536)]
TypeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
Schema = Annotated[
    JsonText | None, Field(alias="schema", description="A JSON Schema, draft 2020-12; a text.")
]
Example = Annotated[JsonText | None, Field(description="Data that fits; a JSON text.")]


class EventTypesQuery(Shape):
    """Which types."""

    deprecated: bool | None = Field(None, description="Only those that are, or are not.")


class NewEventTypeShape(Shape):
    """A type that is to be."""

    type: TypeName
    description: str = Field("", max_length=1_000)
    json_schema: Schema = None
    example: Example = None


class EventTypeChangeShape(Shape):
    """What a type is to be from now on; null takes a schema or an example away."""

    description: str | None = Field(None, max_length=1_000)
    json_schema: Schema = None
    example: Example = None
    deprecated: bool | None = None


class EventTypeRow(Answer):
    """A type of the catalogue."""

    type: str
    description: str
    is_built_in: bool = Field(description="AetherFlow's, not the application's own.")
    has_schema: bool
    deprecated_at: AwareDatetime | None
    created_at: AwareDatetime
    updated_at: AwareDatetime


class EventTypesPage(Answer):
    """The catalogue."""

    items: list[EventTypeRow]


class EventTypeShape(Answer):
    """A type with the schema and an example of its data."""

    type: str
    description: str
    is_built_in: bool
    json_schema: str | None = Field(alias="schema")
    example: str | None
    versions: list[str] = Field(description="Earlier ones that endpoints can get, in order.")
    deprecated_at: AwareDatetime | None
    created_at: AwareDatetime
    updated_at: AwareDatetime


class NewVersionShape(Shape):
    """A version of a type's data that is to be."""

    version: str = Field(
        pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="The last that looked so: 2024-06-01."
    )
    expression: str = Field(
        min_length=1,
        max_length=EXPRESSION_CHARACTERS_MAX,
        description="SQL that makes it of `data` as the next version has it.",
    )
    description: str = Field("", max_length=1_000)


class VersionShape(Answer):
    """How the data of a type looked up to a version."""

    type: str
    version: str
    expression: str = Field(description="As Postgres writes it.")
    description: str
    created_at: AwareDatetime


class AddedVersionShape(VersionShape):
    """A version that was registered."""

    made: str = Field(description="What it makes of the type's example.")


class VersionsPage(Answer):
    """The versions of a type, in their order."""

    items: list[VersionShape]


# Deliveries and attempts.

Verdict = Literal["delivered", "retry", "dead", "halted", "late"]


class DeliveriesQuery(Listed):
    """Which deliveries; by default what is undelivered."""

    state: State | None = None
    endpoint_id: EndpointId | None = None


class DeliveryRow(Answer):
    """A delivery."""

    id: str
    endpoint_id: str
    event_id: str
    state: State
    attempts: int
    due_at: AwareDatetime | None
    reason: str | None
    ended_at: AwareDatetime | None


class DeliveriesPage(Answer):
    """Some deliveries; it may be empty and have more behind it."""

    items: list[DeliveryRow]
    before: GoOn


class HistoryShape(Answer):
    """An attempt, with the start of a failing answer."""

    attempt: int
    trigger: str | None = Field(description="manual, replay, or null: its schedule.")
    started_at: AwareDatetime
    duration_ms: int
    outcome: str | None
    verdict: str
    status: int | None
    error: str | None
    response: str | None


class DeliveryShape(DeliveryOfEvent):
    """A delivery with what is sent, and every attempt."""

    tenant: str | None
    url: str | None
    type: str | None
    data: str | None
    request: RequestShape | None = Field(
        description="What is sent, with the headers of the last attempt; secret values are not."
    )
    history: list[HistoryShape]


class AttemptsQuery(Listed):
    """Which attempts."""

    after: Annotated[str | None, Field(max_length=100)] = Field(
        None, description="The next ones above this one, in place of `before`."
    )
    since: Moment | None = Field(None, description="Begun then or later.")
    until: Moment | None = Field(None, description="Begun earlier.")
    endpoint_id: EndpointId | None = None
    type: Pattern | None = None
    only_failed: bool = False
    verdict: Verdict | None = None
    status: Annotated[str, Field(pattern=STATUS)] | None = Field(None, description="503, or 5xx")
    error: Annotated[str, Field(min_length=1, max_length=TEXT_MAX)] | None = Field(
        None, description="A part of it."
    )


class AttemptRow(Answer):
    """An attempt."""

    id: str
    delivery_id: str
    endpoint_id: str
    event_id: str
    attempt: int
    trigger: str | None
    started_at: AwareDatetime
    duration_ms: int
    outcome: str | None
    verdict: str
    status: int | None
    error: str | None
    tenant: str | None
    type: str | None


class AttemptsPage(Answer):
    """Some attempts, the newest first; it may be empty and have more behind it."""

    items: list[AttemptRow]
    before: GoOn
    after: str | None = Field(description="Where to go on the other way, as `after`.")


class StreamQuery(OfTenant):
    """Which attempts are told as they are recorded."""

    endpoint_id: EndpointId | None = None
    limit: int = Field(
        WAITING_MAX,
        ge=1,
        le=WAITING_MAX,
        description="At most so many at once: the newest of them.",
    )


class MissedShape(Answer):
    """How many attempts were not told, since they came faster than they were read."""

    missed: int


# Replays.


class NewReplayShape(Shape):
    """What is to be sent again."""

    endpoint_id: EndpointId | None = None
    tenant: Text | None = None
    pattern: Pattern | None = None
    since: Moment | None = None
    until: Moment | None = None
    only_failed: bool = False
    rate_per_second: Rate | None = None


class CountedShape(Answer):
    """What a replay would make."""

    deliveries: int
    endpoints: int
    is_whole: bool = Field(description="Everything was counted.")


class ReplayShape(Answer):
    """A replay and how far it has come."""

    id: str
    state: str = Field(description="running, done or cancelled")
    tenant: str | None
    endpoint_id: str | None
    pattern: str | None
    since: AwareDatetime
    until: AwareDatetime
    only_failed: bool
    rate_per_second: float | None
    made: int
    created_at: AwareDatetime
    ended_at: AwareDatetime | None


class ReplaysPage(Answer):
    """Some replays, the newest first."""

    items: list[ReplayShape]
    before: GoOn


# Numbers.


class NumbersQuery(OfTenant):
    """Which numbers."""

    endpoint_id: EndpointId | None = None
    since: Moment | None = Field(None, description="From then on; else the last 60, or 48.")
    until: Moment | None = Field(None, description="Up to then; else up to now.")
    by: Literal["minute", "hour"] = Field("minute", description="Minutes are kept for two days.")


class CountsShape(Answer):
    """What was counted; percentiles are right to a tenth."""

    attempts: int
    delivered: int
    success_rate: float | None = Field(description="0 to 1; null: there was no attempt.")
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    answered_429: int
    answered_4xx: int
    answered_5xx: int
    answered_other: int
    timed_out: int
    not_reached: int
    blocked: int
    late: int = Field(description="Results that came too late: they are not among the attempts.")


class PointShape(CountsShape):
    """What was counted of a minute or an hour."""

    starts_at: AwareDatetime


class NumbersShape(Answer):
    """A point for each minute or hour, the earliest first."""

    points: list[PointShape]


class StatusQuery(OfTenant):
    """Which endpoints."""

    endpoint_id: EndpointId | None = Field(None, description="Only this one.")
    after: EndpointId | None = Field(None, description="Those behind this one.")
    limit: Limit = 100


class StatusRow(Answer):
    """How an endpoint is doing: what waits now, and how the last hour went."""

    id: str
    tenant: str
    url: str
    state: EndpointState
    waiting: int
    in_flight: int
    is_exact: bool = Field(description="False: there are at least so many.")
    oldest_seconds: float | None = Field(description="For so long the first has been due.")
    attempts: int
    success_rate: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class StatusPage(Answer):
    """Some endpoints, in the order of their making."""

    items: list[StatusRow]
    after: str | None = Field(description="Where to go on; null: there is nothing more.")


class NeedyShape(Answer):
    """An endpoint that somebody should look at."""

    id: str
    tenant: str
    url: str
    state: EndpointState
    why: str = Field(description="failing, behind or disabled")
    since: AwareDatetime | None
    reason: str | None
    oldest_seconds: float | None


class OverviewShape(Answer):
    """How all endpoints are doing together."""

    waiting: int
    in_flight: int
    is_exact: bool
    oldest_seconds: float | None
    endpoints: dict[str, int] = Field(description="Their number by state.")
    last_minute: PointShape
    last_hour: CountsShape
    needy: list[NeedyShape]


# Polls.


class PollQuery(Shape):
    """For which endpoint, how much, and what was given before."""

    endpoint_id: EndpointId = Field(description="One that is polled.")
    limit: Limit = ROWS_DEFAULT
    lease_seconds: int = Field(
        LEASE_SECONDS_DEFAULT,
        ge=LEASE_SECONDS[0],
        le=LEASE_SECONDS[1],
        description="What is not acknowledged within is given again.",
    )
    wait_seconds: int = Field(
        0, ge=0, le=30, description="Wait for so long, where there is nothing."
    )
    cursor: str | None = Field(
        None, max_length=100, description="Acknowledge what that answer gave; empty: nothing."
    )


class PolledItem(Answer):
    """A delivery, as a POST would carry it now."""

    id: str
    event_id: str
    type: str
    attempt: int
    headers: dict[str, str] = Field(description="With its signatures.")
    body: str = Field(description="Its UTF-8 bytes are what is signed.")


class PolledShape(Answer):
    """What is given, the oldest first."""

    items: list[PolledItem]
    cursor: str | None = Field(description="Acknowledges them; null: there are none.")
    is_more: bool = Field(description="There may be more: ask at once.")


# Tokens and changes.


class NewTokenShape(Shape):
    """A token that is to be."""

    name: str = Field(min_length=1, max_length=NAME_MAX)
    scope: Scope
    tenant: Text | None = None
    expires_at: Moment | None = None


class TokenShape(Answer):
    """A token, without what opens anything."""

    id: str
    name: str
    scope: Scope
    tenant: str | None
    state: str = Field(description="active, expired or revoked")
    created_at: AwareDatetime
    expires_at: AwareDatetime | None
    last_used_at: AwareDatetime | None


class AddedTokenShape(TokenShape):
    """A token that was made, this once."""

    token: str


class TokensPage(Answer):
    """Every token."""

    items: list[TokenShape]


class NewLinkShape(Shape):
    """A link to the dashboard that is to be."""

    tenant: Text | None = Field(
        None, description="Whose things it shows; a token's own, if it has."
    )
    scope: Literal[Scope.READ, Scope.WRITE] = Field(
        Scope.READ, description="read looks; write changes endpoints and sends again too."
    )
    seconds: float = Field(
        LINK_SECONDS_DEFAULT,
        ge=LINK_SECONDS[0],
        le=LINK_SECONDS[1],
        description="How long it opens.",
    )


class LinkRow(Answer):
    """A link, without what opens anything."""

    id: str
    tenant: str
    scope: str
    token_id: str | None = Field(description="That it was made with; null: by a command.")
    created_at: AwareDatetime
    expires_at: AwareDatetime


class LinksPage(Answer):
    """Links that have not ended, the newest first, at most 1,000."""

    items: list[LinkRow]


class AddedLinkShape(LinkRow):
    """A link that was made, this once."""

    path: str = Field(description="Where it leads on this server.")


class ChangesQuery(Shape):
    """Which changes."""

    subject: Text | None = Field(None, description="Only those of this endpoint, token or other.")
    before: int | None = Field(None, ge=1, lt=2**63, description="Go on behind this change.")
    limit: Limit = ROWS_DEFAULT


class ChangeShape(Answer):
    """What somebody has changed."""

    id: int
    at: AwareDatetime
    actor: str
    action: str
    subject: str
    tenant: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class ChangesPage(Answer):
    """Some changes, the last first."""

    items: list[ChangeShape]
    before: GoOn
