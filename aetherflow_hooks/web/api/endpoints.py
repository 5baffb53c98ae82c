"""Endpoints."""

from http import HTTPStatus
from types import NoneType
from typing import Any, cast, get_args, get_type_hints

from aetherflow_hooks.manage import endpoints, secrets
from aetherflow_hooks.manage.endpoints import EndpointChange, NewEndpoint
from aetherflow_hooks.manage.tokens import Scope
from aetherflow_hooks.manage.trial import try_endpoint
from aetherflow_hooks.web import shapes
from aetherflow_hooks.web.routes import Call, members, route

# What null has a meaning for. Of anything else nothing is asked by it.
FALLING_BACK = {
    name for name, type_ in get_type_hints(EndpointChange).items() if NoneType in get_args(type_)
}


async def own(call: Call, endpoint_id: str) -> dict[str, Any]:
    """Give an endpoint that is there for whoever asks.

    Raises:
        NotFound: there is none of this id, or it is another tenant's.
    """
    return call.own(
        "endpoint", endpoint_id, await endpoints.show_endpoint(call.database, endpoint_id)
    )


@route("GET", "/endpoints", Scope.READ)
async def list_(call: Call, query: shapes.EndpointsQuery) -> shapes.EndpointsPage:
    """List endpoints, in the order of their making."""
    page = await endpoints.list_endpoints(
        call.database,
        tenant=call.tenant(query.tenant),
        labels=() if query.label is None else (query.label,),
        before=query.before,
        rows_max=query.limit,
    )
    rows = [shapes.EndpointShape(**row) for row in page.rows]
    return shapes.EndpointsPage(items=rows, before=page.before)


@route("POST", "/endpoints", Scope.WRITE, status=HTTPStatus.CREATED, repeats=True)
async def add(call: Call, body: shapes.NewEndpointShape) -> shapes.AddedEndpointShape:
    """Add an endpoint; its secret is told this once."""
    given = body.model_dump(exclude_unset=True)
    tenant = call.tenant(given.get("tenant"))
    if tenant is not None:
        given["tenant"] = tenant
    if body.url is None:
        given.pop("url", None)
    made = await endpoints.add_endpoint(call.database, NewEndpoint(**given), settings=call.settings)
    return shapes.AddedEndpointShape(**made)


@route("GET", "/endpoints/{endpoint_id}", Scope.READ)
async def show(call: Call, endpoint_id: str) -> shapes.EndpointShape:
    """Show an endpoint, without its secret."""
    return shapes.EndpointShape.model_validate(await own(call, endpoint_id))


@route("PATCH", "/endpoints/{endpoint_id}", Scope.WRITE)
async def change(
    call: Call, endpoint_id: str, body: shapes.EndpointChangeShape
) -> shapes.EndpointShape:
    """Change an endpoint while engines run; what is not named stays."""
    await own(call, endpoint_id)
    given = body.model_dump(exclude_unset=True)
    version = given.pop("version", None)
    given = {name: it for name, it in given.items() if it is not None or name in FALLING_BACK}
    changed = await endpoints.change_endpoint(
        call.database,
        endpoint_id,
        cast("EndpointChange", given),
        settings=call.settings,
        version=version,
    )
    return shapes.EndpointShape(**changed)


@route("DELETE", "/endpoints/{endpoint_id}", Scope.WRITE)
async def delete(call: Call, endpoint_id: str) -> None:
    """Delete an endpoint; its attempts stay listed."""
    await own(call, endpoint_id)
    await endpoints.delete_endpoint(call.database, endpoint_id)


@route("PUT", "/endpoints/{endpoint_id}/state", Scope.WRITE)
async def set_state(
    call: Call, endpoint_id: str, body: shapes.NewStateShape
) -> shapes.EndpointShape:
    """Pause, resume, disable or enable an endpoint; what waits for it stays."""
    await own(call, endpoint_id)
    await endpoints.set_endpoint_state(call.database, endpoint_id, body.state)
    return shapes.EndpointShape.model_validate(await own(call, endpoint_id))


@route("POST", "/endpoints/{endpoint_id}/rotate-secret", Scope.WRITE)
async def rotate_secret(
    call: Call, endpoint_id: str, body: shapes.RotationShape
) -> shapes.NewSecretShape:
    """Give an endpoint a new secret, told this once; the old one signs too for a while."""
    await own(call, endpoint_id)
    made = await secrets.rotate_secret(
        call.database, endpoint_id, keyring=call.settings.keyring(), **body.model_dump()
    )
    return shapes.NewSecretShape(**made)


@route("POST", "/endpoints/{endpoint_id}/promote-secret", Scope.WRITE)
async def promote_secret(call: Call, endpoint_id: str, body: shapes.PromotionShape) -> None:
    """Let the secret that waits make X-AetherFlow-Signature."""
    await own(call, endpoint_id)
    await secrets.promote_secret(call.database, endpoint_id, overlap_seconds=body.overlap_seconds)


@route("PUT", "/endpoints/{endpoint_id}/certificate", Scope.WRITE)
async def set_certificate(call: Call, endpoint_id: str, body: shapes.CertificateShape) -> None:
    """Show an endpoint a certificate from now on."""
    await own(call, endpoint_id)
    await secrets.set_certificate(
        call.database, endpoint_id, body.certificate, keyring=call.settings.keyring()
    )


@route("DELETE", "/endpoints/{endpoint_id}/certificate", Scope.WRITE)
async def take_certificate(call: Call, endpoint_id: str) -> None:
    """Show an endpoint no certificate any more."""
    await own(call, endpoint_id)
    await secrets.set_certificate(call.database, endpoint_id, None, keyring=call.settings.keyring())


@route("POST", "/endpoints/{endpoint_id}/test", Scope.WRITE)
async def test(call: Call, endpoint_id: str, body: shapes.TrialShape) -> shapes.TriedShape:
    """Send an event to an endpoint now, and tell the request and the answer; none is stored."""
    await own(call, endpoint_id)
    given = members(call.raw.decode())
    tried = await try_endpoint(
        call.database,
        endpoint_id,
        settings=call.settings,
        try_out=call.lent.try_out,
        event_type=body.type,
        **({"data": given["data"]} if "data" in given else {}),
    )
    response = tried.pop("response").decode("utf-8", "backslashreplace")
    return shapes.TriedShape(**tried, response=response)


ROUTES = (
    *(list_, add, show, change, delete, set_state),
    *(rotate_secret, promote_secret, set_certificate, take_certificate, test),
)
