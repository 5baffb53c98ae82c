"""Endpoints: how they are doing, what they are, and all that can be done with one."""

import json
from http import HTTPStatus
from typing import Any

from aiohttp import web

from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.model import EndpointState
from aetherflow_hooks.rules.topics import CATALOGUE
from aetherflow_hooks.web import shapes
from aetherflow_hooks.web.api import attempts, changes, endpoints, event_types, numbers
from aetherflow_hooks.web.dashboard.charts import attempts_chart, latency_chart
from aetherflow_hooks.web.dashboard.forms import (
    filled,
    json_object,
    pairs,
    schedule,
    several,
    some,
)
from aetherflow_hooks.web.dashboard.render import number
from aetherflow_hooks.web.dashboard.visits import Visit, page

LATEST = 20  # attempts
PERIODS = {"hour": ("minute", "%H:%M"), "days": ("hour", "%a %H:%M")}
ONLY_NEW = ("tenant", "secret", "ordering", "ed25519", "polled")
ONLY_CHANGED = ("headers_gone", "version")
NUMBERS = ("rate_per_second", "burst", "max_in_flight", "timeout_seconds")
TEXTS = ("url", "description", "filter", "payload_version")
WORDS = ("events", "channels", "labels")
CAN_BE_NONE = (  # where nothing is typed
    *("rate_per_second", "max_in_flight", "timeout_seconds", "retry_schedule_seconds"),
    *("filter", "payload_version"),
)


@page("GET", "/endpoints")
async def list_(visit: Visit) -> web.Response:
    """List endpoints with how they are doing."""
    query = filled(shapes.StatusQuery, some(visit.query, "tenant", "after"))
    found = await visit.ask(numbers.list_, query=query)
    return visit.show(
        "endpoints.html",
        found=found,
        tenant=query.tenant or "",
        may_add=visit.may(endpoints.add),
    )


@page("GET", "/endpoints/new")
async def new(visit: Visit) -> web.Response:
    """Show the form of a new endpoint."""
    return _form(visit, {"events": "*", "burst": "1", **visit.query})


@page("POST", "/endpoints/new")
async def add(visit: Visit) -> web.Response:
    """Add an endpoint, and show its secret this once."""
    try:
        given = _given(visit.form) | some(visit.form, "secret", "tenant", "ordering")
        given |= {name: True for name in ("ed25519", "polled") if visit.form.get(name)}
        body = filled(shapes.NewEndpointShape, given)
        made = await visit.ask_once(endpoints.add, shapes.AddedEndpointShape, body=body)
    except InputRefused as error:
        return _form(visit, visit.form, wrong=str(error))
    return visit.show(
        "secret.html",
        status=HTTPStatus.CREATED,
        title="Endpoint added",
        endpoint_id=made.id,
        secret=made.secret,
        public_key=made.public_keys[0] if made.public_keys else None,
    )


@page("GET", "/endpoints/{endpoint_id}")
async def show(visit: Visit, endpoint_id: str, wrong: str | None = None) -> web.Response:
    """Show an endpoint, its charts and its last attempts."""
    endpoint = await visit.ask(endpoints.show, endpoint_id=endpoint_id)
    period = visit.query.get("period", "hour")
    step, form = PERIODS.get(period, PERIODS["hour"])
    told = await visit.ask(
        numbers.show, query=shapes.NumbersQuery(endpoint_id=endpoint_id, by=step)
    )
    points = [point.model_dump() for point in told.points]
    latest = await visit.ask(
        attempts.list_, query=shapes.AttemptsQuery(endpoint_id=endpoint_id, limit=LATEST)
    )
    doing = await visit.ask(numbers.list_, query=shapes.StatusQuery(endpoint_id=endpoint_id))
    made = None
    if visit.may(changes.list_):
        made = await visit.ask(
            changes.list_, query=shapes.ChangesQuery(subject=endpoint_id, limit=5)
        )
    types = await visit.ask(event_types.list_, query=shapes.EventTypesQuery())
    return visit.show(
        "endpoint.html",
        endpoint=endpoint,
        doing=doing.items[0] if doing.items else None,
        wrong=wrong,
        period=period,
        charts=[attempts_chart(points, form), latency_chart(points, form)],
        latest=latest.items,
        changes=made and made.items,
        may_write=visit.may(endpoints.change),
        types=[row.type for row in types.items],
    )


@page("GET", "/endpoints/{endpoint_id}/edit")
async def edit(visit: Visit, endpoint_id: str) -> web.Response:
    """Show the form of an endpoint that is there."""
    endpoint = await visit.ask(endpoints.show, endpoint_id=endpoint_id)
    return _form(visit, _typed(endpoint), endpoint=endpoint)


@page("POST", "/endpoints/{endpoint_id}/edit")
async def change(visit: Visit, endpoint_id: str) -> web.Response:
    """Change an endpoint."""
    try:
        given: dict[str, Any] = {**dict.fromkeys(CAN_BE_NONE), "description": "", "metadata": {}}
        given |= _given(visit.form)
        given |= some(visit.form, "version", "ordering")
        given["headers"] = _headers_changed(visit.form)
        if "url" in visit.form:  # one that is polled has none
            given["url"] = visit.form["url"].strip()
        body = filled(shapes.EndpointChangeShape, given)
        await visit.ask(endpoints.change, endpoint_id=endpoint_id, body=body)
    except InputRefused as error:
        endpoint = await visit.ask(endpoints.show, endpoint_id=endpoint_id)
        return _form(visit, visit.form, endpoint=endpoint, wrong=str(error))
    return visit.go(f"/endpoints/{endpoint_id}", did="saved")


@page("POST", "/endpoints/{endpoint_id}/state")
async def set_state(visit: Visit, endpoint_id: str) -> web.Response:
    """Pause, resume, disable or enable an endpoint."""
    body = filled(shapes.NewStateShape, some(visit.form, "state"))
    await visit.ask(endpoints.set_state, endpoint_id=endpoint_id, body=body)
    return visit.go(f"/endpoints/{endpoint_id}", did=str(EndpointState(body.state)))


@page("POST", "/endpoints/{endpoint_id}/rotate-secret")
async def rotate_secret(visit: Visit, endpoint_id: str) -> web.StreamResponse:
    """Give an endpoint a new secret, and show it this once."""
    given: dict[str, Any] = some(visit.form, "secret", "overlap_seconds")
    given["leads"] = visit.form.get("leads") != "later"
    try:
        body = filled(shapes.RotationShape, given)
        made = await visit.ask(endpoints.rotate_secret, endpoint_id=endpoint_id, body=body)
    except InputRefused as error:
        return await show.handler(visit, endpoint_id, str(error))
    return visit.show(
        "secret.html",
        title="New secret",
        endpoint_id=endpoint_id,
        secret=made.secret,
        public_key=made.public_key,
    )


@page("POST", "/endpoints/{endpoint_id}/promote-secret")
async def promote_secret(visit: Visit, endpoint_id: str) -> web.StreamResponse:
    """Let the secret that waits make X-AetherFlow-Signature."""
    try:
        body = shapes.PromotionShape()
        await visit.ask(endpoints.promote_secret, endpoint_id=endpoint_id, body=body)
    except InputRefused as error:
        return await show.handler(visit, endpoint_id, str(error))
    return visit.go(f"/endpoints/{endpoint_id}", did="promoted")


@page("POST", "/endpoints/{endpoint_id}/test")
async def test(visit: Visit, endpoint_id: str) -> web.StreamResponse:
    """Send something to an endpoint now, and show the request and the answer."""
    given: dict[str, Any] = some(visit.form, "type")
    raw = "{}"
    if given and visit.may(event_types.show):
        shown = await visit.ask(event_types.show, type=given["type"])
        if shown.example:
            raw = f'{{"data": {shown.example}}}'
    try:
        body = filled(shapes.TrialShape, given)
        tried = await visit.ask(endpoints.test, endpoint_id=endpoint_id, body=body, raw=raw)
    except InputRefused as error:
        return await show.handler(visit, endpoint_id, str(error))
    return visit.show("tried.html", tried=tried)


@page("POST", "/endpoints/{endpoint_id}/delete")
async def delete(visit: Visit, endpoint_id: str) -> web.Response:
    """Delete an endpoint."""
    await visit.ask(endpoints.delete, endpoint_id=endpoint_id)
    return visit.go("/endpoints", did="deleted")


def _form(
    visit: Visit,
    typed: Any,
    *,
    endpoint: shapes.EndpointShape | None = None,
    wrong: str | None = None,
) -> web.Response:
    visit.call.check(endpoints.add.scope)
    names = (*TEXTS, *NUMBERS, *WORDS, "retry_schedule_seconds", "metadata", "headers", "traced")
    return visit.show(
        "endpoint_form.html",
        endpoint=endpoint,
        typed=dict.fromkeys((*names, *ONLY_NEW, *ONLY_CHANGED), "") | dict(typed),
        wrong=wrong,
        catalogue=CATALOGUE,
    )


def _given(form: Any) -> dict[str, Any]:
    """Give what of an endpoint was typed, as the API takes it."""
    given: dict[str, Any] = some(form, *TEXTS, *NUMBERS)
    if "url" in given:
        given["url"] = given["url"].strip()
    given |= {name: several(form.get(name, "")) for name in WORDS}
    given["traced"] = bool(form.get("traced"))
    if form.get("headers"):
        given["headers"] = pairs(form["headers"])
    if form.get("metadata"):
        given["metadata"] = json_object("metadata", form["metadata"])
        if any(isinstance(value, bool) for value in given["metadata"].values()):
            raise InputRefused("metadata: it holds strings and numbers, and true is neither")
    pauses = schedule(form.get("retry_schedule_seconds", ""))
    return given if pauses is None else given | {"retry_schedule_seconds": pauses}


def _headers_changed(form: Any) -> dict[str, str | None]:
    """Give the headers to set, and those to take away."""
    return {
        **dict.fromkeys(several(form.get("headers_gone", ""))),
        **pairs(form.get("headers", "")),
    }


def _typed(endpoint: shapes.EndpointShape) -> dict[str, str]:
    """Write an endpoint as it would be typed. Values of headers are not known to anybody."""
    known = endpoint.model_dump()
    schedule_ = known["retry_schedule_seconds"]
    pauses = "none" if schedule_ == [] else ", ".join(map(number, schedule_ or ()))
    return {
        **{name: "" if known[name] is None else number(known[name]) for name in NUMBERS},
        **{name: known[name] or "" for name in (*TEXTS, "tenant", "ordering")},
        **{name: ", ".join(known[name]) for name in WORDS},
        "metadata": json.dumps(known["metadata"], ensure_ascii=False) if known["metadata"] else "",
        "retry_schedule_seconds": pauses,
        "traced": "yes" if known["traced"] else "",
        "version": str(known["version"]),
    }


PAGES = (
    *(list_, new, add, show, edit, change, set_state),
    *(rotate_secret, promote_secret, test, delete),
)
