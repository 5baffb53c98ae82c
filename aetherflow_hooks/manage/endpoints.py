"""Endpoints: add, list, open, change, delete."""

import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypedDict

from aetherflow_hooks.config import Settings
from aetherflow_hooks.db import Database, Row
from aetherflow_hooks.errors import InputRefused, NotFound
from aetherflow_hooks.manage.audit import ChangedMeanwhile, audited
from aetherflow_hooks.manage.filters import stored_filter
from aetherflow_hooks.manage.keys import seal
from aetherflow_hooks.manage.pages import (
    NO_EVENT,
    ROWS_DEFAULT,
    ROWS_MAX,
    Page,
    Place,
    place_of,
)
from aetherflow_hooks.manage.secrets import chosen_secret, stored_certificate
from aetherflow_hooks.model import Endpoint, EndpointState
from aetherflow_hooks.rules.headers import check_headers, check_names
from aetherflow_hooks.rules.metadata import Metadata, read_metadata, write_metadata
from aetherflow_hooks.rules.opening import endpoint_of
from aetherflow_hooks.rules.ranges import in_range
from aetherflow_hooks.rules.retry import schedule_of
from aetherflow_hooks.rules.signing import public_key_of
from aetherflow_hooks.rules.topics import is_pattern
from aetherflow_hooks.rules.urls import parse_url
from aetherflow_hooks.rules.versions import check_version
from aetherflow_hooks.rules.words import channels_of_endpoint, labels_of_endpoint

ID_BYTES = 6
ORDERINGS = ("skip", "block")
PATTERNS_MAX = 100
RATE_MAX = 100_000.0
IN_FLIGHT_MAX = 10_000
TIMEOUT_SECONDS = (0.1, 300.0)
RETRIES_MAX = 50
RETRY_PAUSE_SECONDS_MAX = 30 * 86_400.0
CHANGE_TRIES_MAX = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEndpoint:
    """What an endpoint is asked to be. None stands for the setting."""

    url: str = ""
    polled: bool = False  # it asks for what waits: it has no URL, and nothing that POSTs go by
    events: Sequence[str] = ("*",)
    tenant: str = ""
    description: str = ""
    secret: str | None = field(default=None, repr=False)
    ed25519: bool = False  # sign with a new pair of keys, in place of a shared secret
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    certificate: str | None = field(default=None, repr=False)  # a PEM that we show, with its key
    rate_per_second: float | None = None
    burst: int = 1
    max_in_flight: int | None = None
    timeout_seconds: float | None = None
    retry_schedule_seconds: Sequence[float] | str | None = None  # or the name of a preset
    ordering: str | None = None  # skip or block: what follows of a key when one is given up
    filter: str | None = None  # a condition on the data of its events: see the README
    channels: Sequence[str] = ()  # only events that have one of them; none: all
    payload_version: str | None = None  # it gets data as this had it; None: as it is emitted
    traced: bool = False  # its requests carry `traceparent`
    labels: Sequence[str] = ()
    metadata: Metadata = field(default_factory=dict)  # of the application's own; never sent


class EndpointChange(TypedDict, total=False):
    """What an endpoint is to be from now on; what is not named stays. None stands for the setting.

    Of `headers` those that are named are replaced, or taken away where the value is None.
    """

    url: str
    events: Sequence[str]
    description: str
    headers: Mapping[str, str | None]
    rate_per_second: float | None  # None: no limit
    burst: int
    max_in_flight: int | None
    timeout_seconds: float | None
    retry_schedule_seconds: Sequence[float] | str | None
    ordering: str | None
    filter: str | None  # None: no condition; it holds for what is fanned out from then on
    channels: Sequence[str]  # in place of those before, likewise; none: events of every channel
    traced: bool
    payload_version: str | None  # it holds from the next attempt on, of old events too
    labels: Sequence[str]  # in place of those before
    metadata: Metadata  # likewise


async def add_endpoint(
    database: Database, new: NewEndpoint, *, settings: Settings
) -> dict[str, Any]:
    """Register an endpoint; give it as `show_endpoint` does, and this once with its `secret`.

    Events that were emitted before are not sent to it. Where a pair of keys was made, `secret` is
    None: nobody but the engine needs the private one, and `public_keys` has the other.

    Raises:
        InputRefused: a value breaks a rule; the message says which.
    """
    _check(new)
    check_headers(new.headers)
    url = "" if new.polled else str(parse_url(new.url, settings.egress_rules()))
    secret = chosen_secret(new.secret, ed25519=new.ed25519)
    endpoint_id = f"ep_{secrets.token_hex(ID_BYTES)}"
    keyring = settings.keyring()
    async with audited(database, "endpoint.add", endpoint_id, look=show_endpoint) as bound:
        await bound.value(
            "add_endpoint",
            endpoint_id,
            new.tenant,
            url,
            new.description,
            *_limits(new),
            seal(keyring, secret, endpoint_id),
            list(new.events),
            list(new.headers),
            [seal(keyring, value, endpoint_id, header=name) for name, value in new.headers.items()],
            public_key_of(secret),
            *stored_certificate(new.certificate, endpoint_id, keyring),
            new.ordering,
            await stored_filter(bound, new.filter),
            labels_of_endpoint(new.labels),
            write_metadata(new.metadata),
            channels_of_endpoint(new.channels),
            new.polled,
            new.payload_version,
            new.traced,
        )
    told = None if new.ed25519 else secret
    return {**await show_endpoint(database, endpoint_id), "secret": told}


async def list_endpoints(
    database: Database,
    *,
    tenant: str | None = None,
    labels: Sequence[str] = (),
    before: str | None = None,
    rows_max: int = ROWS_DEFAULT,
) -> Page:
    """List endpoints, of one tenant or of all, that have all these labels.

    They come in the order of their making; go on behind `before`, where a page has ended.

    Raises:
        InputRefused: `before` is no place in this list, or `rows_max` is not 1 to 1,000.
    """
    in_range("the number of rows", rows_max, 1, ROWS_MAX)
    at = place_of(before) if before else None
    behind = (at and at.at, at and at.endpoint_id)
    found = await database.rows("list_endpoints", tenant, None, list(labels), *behind, rows_max)
    is_more = len(found) == rows_max
    end = Place(found[-1]["created_at"], found[-1]["id"], NO_EVENT).written() if is_more else None
    return Page([_told(row) for row in found], end)


async def find_endpoint(database: Database, endpoint_id: str) -> dict[str, Any] | None:
    """Give one endpoint, without its secret; None: there is none of this id."""
    rows = await database.rows("list_endpoints", None, endpoint_id, None, None, None, 1)
    return _told(rows[0]) if rows else None


async def show_endpoint(database: Database, endpoint_id: str) -> dict[str, Any]:
    """Give one endpoint, without its secret.

    Raises:
        NotFound: there is none of this id.
    """
    found = await find_endpoint(database, endpoint_id)
    if found is None:
        raise NotFound("endpoint", endpoint_id)
    return found


async def open_endpoint(database: Database, endpoint_id: str, settings: Settings) -> Endpoint:
    """Give an endpoint in any state as an engine has it, with its secrets opened.

    `unsignable` says why nothing can be signed for it, where that is so.

    Raises:
        NotFound: there is none of this id.
    """
    asked_at = time.monotonic()
    rows = await database.rows("load_endpoints", [endpoint_id], True)
    if not rows:
        raise NotFound("endpoint", endpoint_id)
    return endpoint_of(
        rows[0], settings.endpoint_defaults(), keyring=settings.keyring(), asked_at=asked_at
    )


async def change_endpoint(
    database: Database,
    endpoint_id: str,
    change: EndpointChange,
    *,
    settings: Settings,
    version: int | None = None,
) -> dict[str, Any]:
    """Change an endpoint; give it as `show_endpoint` does.

    Engines go by it within milliseconds; what is being sent at that moment goes on as it was. Only
    a change of what was seen as `version` is made, where that is given.

    Raises:
        NotFound: there is none of this id.
        InputRefused: a value breaks a rule, or the endpoint is not at that version; nothing was
            changed.
    """
    headers = change.get("headers", {})
    check_names(list(headers))
    given = {name: value for name, value in headers.items() if value is not None}
    check_headers(given)
    if "filter" in change:
        change = {**change, "filter": await stored_filter(database, change["filter"])}
    keyring = settings.keyring()
    for _ in range(CHANGE_TRIES_MAX):
        old = await show_endpoint(database, endpoint_id)
        if version not in (None, old["version"]):
            break
        new = _changed(old, change)
        _check(replace(new, headers={**new.headers, **given}))
        if change.get("url"):  # what is there may have been let in by other settings
            new = replace(new, url=str(parse_url(new.url, settings.egress_rules())))
        _check_order(old["ordering"], new.ordering)
        check_names([*new.headers, *given])
        with suppress(ChangedMeanwhile):
            async with audited(
                database, "endpoint.change", endpoint_id, look=show_endpoint
            ) as bound:
                was_changed = await bound.value(
                    "change_endpoint",
                    endpoint_id,
                    old["version"],
                    new.url,
                    new.description,
                    *_limits(new),
                    new.ordering,
                    list(new.events),
                    [name.lower() for name in headers],
                    list(given),
                    [seal(keyring, value, endpoint_id, header=it) for it, value in given.items()],
                    new.filter,
                    labels_of_endpoint(new.labels),
                    write_metadata(new.metadata),
                    channels_of_endpoint(new.channels),
                    new.payload_version,
                    new.traced,
                )
                if not was_changed:
                    raise ChangedMeanwhile
                await bound.value("wake", endpoint_id)
            return await show_endpoint(database, endpoint_id)
    raise InputRefused(f"{endpoint_id} has been changed meanwhile: look at it again")


async def set_endpoint_state(database: Database, endpoint_id: str, state: EndpointState) -> None:
    """Make an endpoint active, paused or disabled. What waits for it stays.

    Raises:
        NotFound: there is none of this id.
    """
    async with audited(database, "endpoint.set_state", endpoint_id, look=show_endpoint) as bound:
        if await bound.value("set_endpoint_state", endpoint_id, state) is None:
            raise NotFound("endpoint", endpoint_id)
        await bound.value("wake", endpoint_id)


async def delete_endpoint(database: Database, endpoint_id: str) -> None:
    """Delete an endpoint. Its attempts stay listed.

    Nothing more is leased for it; what an engine has on lease already is given back as soon as
    that hears of it, mostly within milliseconds.

    Raises:
        NotFound: there is none of this id.
    """
    async with audited(database, "endpoint.delete", endpoint_id, look=show_endpoint) as bound:
        if await bound.value("delete_endpoint", endpoint_id) is None:
            raise NotFound("endpoint", endpoint_id)
        await bound.value("wake", endpoint_id)


def _told(row: Row) -> dict[str, Any]:
    return {**dict(row), "metadata": read_metadata(row["metadata"])}


def _changed(old: Mapping[str, Any], change: EndpointChange) -> NewEndpoint:
    """Give an endpoint as it is to be; of its headers the names that stay, without values."""
    names = [field.name for field in fields(NewEndpoint) if field.name in old]
    gone = {name.lower() for name in change.get("headers", {})}
    kept = {name: "" for name in old["headers"] if name.lower() not in gone}
    return NewEndpoint(
        **{name: old[name] for name in names}
        | dict(change)
        | {"headers": kept, "certificate": None}
    )


def _limits(new: NewEndpoint) -> tuple[object, ...]:
    """Give the limits and the schedule as they are stored."""
    return (
        new.rate_per_second,
        new.burst,
        new.max_in_flight,
        new.timeout_seconds,
        schedule_of(new.retry_schedule_seconds),
    )


def _check_kind(new: NewEndpoint) -> None:
    """Ask for a URL, or refuse what is of POSTs alone."""
    if not new.polled:
        if not new.url:
            raise InputRefused("an endpoint has a URL to POST to, unless it is polled")
        return
    given = {
        "URL": new.url,
        "headers of its own": new.headers,
        "certificate": new.certificate,
        "rate": new.rate_per_second,
        "burst": new.burst != 1,
        "max-in-flight": new.max_in_flight,
        "timeout": new.timeout_seconds,
        "schedule of retries": new.retry_schedule_seconds not in (None, "default"),
        "order": new.ordering,
        "version of the data": new.payload_version,
        "trace": new.traced,
    }
    wrong = [what for what, value in given.items() if value]
    if wrong:
        raise InputRefused(
            f"an endpoint that is polled has no {wrong[0]}: "
            "nothing is posted to it, and what it does not acknowledge is given again"
        )


def _check_order(old: str | None, new: str | None) -> None:
    if (old is None) != (new is None):
        raise InputRefused(
            "whether an endpoint has an order is chosen when it is added, since what waits is kept "
            "otherwise: add another one, and delete this one"
        )


def _check(new: NewEndpoint) -> None:
    _check_kind(new)
    if not 1 <= len(new.events) <= PATTERNS_MAX:
        raise InputRefused(f"an endpoint wants 1 to {PATTERNS_MAX} patterns of events")
    for pattern in new.events:
        if not is_pattern(pattern):
            raise InputRefused(
                f"{pattern!r} chooses no events: write *, a type such as user.joined, or user.*"
            )
    for name, text in (("tenant", new.tenant), ("description", new.description)):
        if len(text) > 256 or not text.isprintable():  # noqa: PLR2004
            raise InputRefused(f"the {name} is at most 256 printable characters")
    if new.ordering not in (None, *ORDERINGS):
        raise InputRefused(f"an order is one of {', '.join(ORDERINGS)}, not {new.ordering!r}")
    if new.payload_version is not None:
        check_version(new.payload_version)
    numbers = [
        ("the rate", new.rate_per_second, 0.001, RATE_MAX),
        ("the burst", new.burst, 1, IN_FLIGHT_MAX),
        ("max-in-flight", new.max_in_flight, 1, IN_FLIGHT_MAX),
        ("the timeout", new.timeout_seconds, *TIMEOUT_SECONDS),
    ]
    pauses = schedule_of(new.retry_schedule_seconds) or ()
    numbers.append(("the number of retries", len(pauses), 0, RETRIES_MAX))
    numbers += [("a pause before a retry", pause, 0, RETRY_PAUSE_SECONDS_MAX) for pause in pauses]
    for what, value, low, high in numbers:
        if value is not None:
            in_range(what, value, low, high)
