"""OpenAPI: the API's document, made from its routes."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from aetherflow_hooks.manage.tokens import Scope
from aetherflow_hooks.web.problems import CONTENT_TYPE, ProblemShape
from aetherflow_hooks.web.repeats import HEADER, KEY
from aetherflow_hooks.web.routes import EVENT_STREAM, IDS, JSON, PREFIX, Route

REF = "#/components/schemas/{model}"
BEARER = "token"
PATH = f"{PREFIX}/openapi.json"

_ALWAYS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.MISDIRECTED_REQUEST,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
_OF_A_BODY = (
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
)

_KEY = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "schema": {"type": "string", "pattern": KEY},
    "description": "A request with a key that this token has used within a day takes no effect, "
    "and is answered as the first one was.",
}

Schemas = Mapping[tuple[Any, JsonSchemaMode], dict[str, Any]]


@cache
def document(routes: tuple[Route, ...]) -> dict[str, Any]:
    """Make the document (OpenAPI 3.1) of some routes."""
    schemas, shared = models_json_schema(
        [*_models(routes), (ProblemShape, "serialization")], ref_template=REF
    )
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        operation = _operation(route, schemas)
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "AetherFlow Hooks",
            "version": version("aetherflow-hooks"),
            "summary": "Webhook delivery for applications on Postgres.",
            "description": _DESCRIPTION,
        },
        "servers": [{"url": "/"}],
        "security": [{BEARER: []}],
        "paths": paths,
        "components": {
            "schemas": shared["$defs"],
            "securitySchemes": {
                BEARER: {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token, as `aetherflow-hooks token add` prints it.",
                }
            },
        },
    }


_DESCRIPTION = f"""
Every request has a token: `Authorization: Bearer af_…`. A token has a scope: {", ".join(Scope)},
each of which may do what those before it may; one of a tenant finds nothing of others (404).

Lists go on by `before`: give what the last page told. What happens meanwhile neither moves nor
doubles a row. Errors are `{CONTENT_TYPE}` (RFC 9457), with a `code` for programs.
""".strip()


def _models(routes: Sequence[Route]) -> Iterator[tuple[type[BaseModel], JsonSchemaMode]]:
    for route in routes:
        if route.body is not None:
            yield route.body, "validation"
        if route.gives is not None:
            yield route.gives, "serialization"


def _operation(route: Route, schemas: Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "tags": [route.tag],
        "summary": inspect.getdoc(route.handler),
        "description": f"Needs a token with scope `{route.scope}`.",
        "parameters": [
            *_path_parameters(route),
            *_query_parameters(route),
            *([_KEY] if route.repeats else ()),
        ],
        "responses": dict(_responses(route, schemas)),
    }
    if route.body is not None:
        content = {JSON: {"schema": schemas[route.body, "validation"]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _path_parameters(route: Route) -> Iterator[dict[str, Any]]:
    for name in route.parameters:
        pattern = {"pattern": f"^{IDS[name]}$"} if name in IDS else {"minLength": 1}
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", **pattern},
        }


def _query_parameters(route: Route) -> Iterator[dict[str, Any]]:
    if route.query is None:
        return
    schema = route.query.model_json_schema(ref_template=REF)
    for name, told in schema["properties"].items():
        shown = dict(told)
        description = shown.pop("description", None)
        shown.pop("title", None)
        # A parameter that is left out is null; it cannot be given as null.
        choices = [it for it in shown.get("anyOf", ()) if it != {"type": "null"}]
        if choices:
            del shown["anyOf"]
            shown |= _inlined(choices[0], schema)
            if shown.get("default") is None:
                shown.pop("default", None)
        shown = _inlined(shown, schema)
        description = shown.pop("description", description) if description is None else description
        is_required = name in schema.get("required", ())
        parameter = {"name": name, "in": "query", "required": is_required, "schema": shown}
        yield parameter | ({"description": description} if description else {})


def _inlined(shown: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Put what is referred to in its place: parameters are small."""
    if "$ref" not in shown:
        return shown
    name = shown["$ref"].rpartition("/")[2]
    found: dict[str, Any] = schema["$defs"][name]
    return {key: it for key, it in shown.items() if key != "$ref"} | found


def _responses(route: Route, schemas: Schemas) -> Iterator[tuple[str, dict[str, Any]]]:
    told: dict[str, Any] = {"description": route.status.phrase}
    if route.gives is not None:
        kind = EVENT_STREAM if route.is_stream else JSON
        told["content"] = {kind: {"schema": schemas[route.gives, "serialization"]}}
    yield str(route.status.value), told
    statuses = [*_ALWAYS]
    if route.body is not None:
        statuses += _OF_A_BODY
    if route.repeats or route.conflicts:
        statuses.append(HTTPStatus.CONFLICT)
    if route.parameters or route.query is not None or route.body is not None:
        statuses.append(HTTPStatus.NOT_FOUND)
    problem = schemas[ProblemShape, "serialization"]
    for status in sorted(statuses):
        content = {CONTENT_TYPE: {"schema": problem}}
        yield str(status.value), {"description": status.phrase, "content": content}
