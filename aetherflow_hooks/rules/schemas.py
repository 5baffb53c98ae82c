"""Schemas: whether the data of an event is what its type's JSON Schema says.

What is checked is the data as it was read; what is sent is its text, which nothing here changes.
"""

import functools
import json
import sys
from collections.abc import Iterator
from typing import Any

from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.rules.topics import is_type

SCHEMA_BYTES_MAX = 65_536
SCHEMAS_KEPT_MAX = 64
PATTERN_BYTES_MAX = 100_000  # of a compiled pattern: the time it takes is that by the text's length
TOLD_CHARACTERS_MAX = 300
LEVELS_MAX = 100  # down to what does not fit
DIGITS_MAX = 308  # of an integer; what is longer counts as the largest number there is
ANYTHING = "{}"  # the schema of a registered type that has none
DRAFT = "https://json-schema.org/draft/2020-12/schema"


def check_schema(text: str) -> None:
    """Say whether a text is a JSON Schema of draft 2020-12 that data can be checked with.

    Raises:
        InputRefused: it is none, too large, refers to something outside, or holds a pattern that
            is not matched in linear time; the message says where.
    """
    if _bytes(text) > SCHEMA_BYTES_MAX:
        raise InputRefused(f"the schema is over {SCHEMA_BYTES_MAX:,} bytes")
    _usable(text, "the schema")


def check_example(schema: str | None, example: str) -> None:
    """Say whether an example is a JSON object that fits a schema, if there is one.

    Raises:
        InputRefused: it is none, or does not fit, and the message says where first.
    """
    read = read_json(example, "the example")
    if not isinstance(read, dict):
        raise InputRefused("the example is no JSON object")
    if schema is not None:
        _check(schema, read, "the example", "the schema")


def check_data(event_type: str, schema: str | None, data: str) -> None:
    """Say whether the data of an event fits the schema of its type, both JSON texts.

    `schema` is what `aetherflow.schema_of(type)` gives: None where the type is not registered. Of
    a key that is there twice the last one counts, as it does for most receivers.

    Raises:
        InputRefused: it does not fit, and the message says where first; or it cannot be checked:
            the type is not registered, the data is no JSON, or the schema none.
    """
    if not is_type(event_type):
        raise InputRefused(f"{event_type[:200]!r} is not a type: 1 to 128 of A-Z a-z 0-9 _ . -")
    if schema is None:
        raise InputRefused(
            f"the type {event_type} is not registered, so its data cannot be checked: register it"
            f" with `aetherflow-hooks event-type add {event_type}`"
        )
    if schema != ANYTHING:
        what = f"the data of {event_type}"
        _check(schema, read_json(data, what), what, f"the schema of {event_type}")


def read_json(text: str, what: str) -> Any:
    """Read a JSON text; numbers that are too large for that count as the largest one.

    Raises:
        InputRefused: it is none. The message begins with `what`, and does not repeat the text.
    """
    try:
        return json.loads(
            text, parse_int=_integer, parse_float=_number, parse_constant=_refuse_constant
        )
    except RecursionError:
        raise InputRefused(f"{what} is nested too deeply") from None
    except ValueError as error:
        raise InputRefused(f"{what} is no JSON: {error}") from None


def _check(schema: str, read: Any, what: str, whose: str) -> None:
    """Refuse what does not fit; the values that it holds are not repeated."""
    try:
        if _usable(schema, whose).is_valid(read):
            return
    except ValueError as error:  # data that the library cannot take
        raise InputRefused(f"{what} cannot be checked: {_clean(str(error))}") from None
    raise InputRefused(f"{what} does not fit the schema: {_why(schema, read)}")


def _usable(text: str, what: str) -> Any:
    try:
        return _validator(text)
    except InputRefused as error:
        raise InputRefused(f"{what} cannot be used: {error}") from None


@functools.lru_cache(SCHEMAS_KEPT_MAX)
def _validator(text: str) -> Any:
    import jsonschema_rs  # noqa: PLC0415  for few, and 3 MB

    schema = read_json(text, "it")
    if not isinstance(schema, dict):
        raise InputRefused("it is no JSON object")
    types = schema.get("type", "object")
    if "object" not in (types if isinstance(types, list) else [types]):
        raise InputRefused("nothing fits it, since data is always an object")
    if str(schema.get("$schema", DRAFT)).removesuffix("#") != DRAFT:
        raise InputRefused(f"it is not of draft 2020-12, whose $schema is {DRAFT}")
    try:
        return jsonschema_rs.Draft202012Validator(schema, **_options(jsonschema_rs))
    except ValueError as error:
        told = f"{_place(error)}: {getattr(error, 'message', error)}"
        raise InputRefused(f"it is no JSON Schema of draft 2020-12: {_clean(told)}") from None


def _options(library: Any) -> dict[str, Any]:
    linear = library.RegexOptions(size_limit=PATTERN_BYTES_MAX, dfa_size_limit=PATTERN_BYTES_MAX)
    return {"pattern_options": linear, "offline": True, "mask": "it"}


def _place(error: Any) -> str:
    path = getattr(error, "instance_path", ())
    return "$" + "".join(f"[{it}]" if isinstance(it, int) else f".{it}" for it in path)


def _why(text: str, data: Any) -> str:
    """Say where data does not fit first, and what it should be there.

    The library could tell, but tries each alternative of each level anew, and copies the data for
    it: some would take years. Whether a part fits is all that it is asked.
    """
    import jsonschema_rs  # noqa: PLC0415

    schema = json.loads(text)
    parts = jsonschema_rs.validator_map_for(schema, **_options(jsonschema_rs))
    where, pointer, part = "$", "#", schema
    for _ in range(LEVELS_MAX):
        for step, below, rule, value in _below(schema, pointer, part, data):
            validator = parts.get(below)
            if validator is not None and not validator.is_valid(value):
                where, pointer, part, data = where + step, below, rule, value
                break
        else:
            break
    names = part.get("required", ()) if isinstance(part, dict) else ()
    missing = [name for name in names if isinstance(data, dict) and name not in data]
    if missing:
        return _clean(f"{where} lacks {', '.join(map(json.dumps, missing))}")
    return _clean(f"{where} does not fit {json.dumps(part)}")


def _below(root: Any, pointer: str, part: Any, data: Any) -> Iterator[tuple[str, str, Any, Any]]:
    """Give what stands below: the step to it, and its pointer, rule and value."""
    if not isinstance(part, dict):
        return
    reference = part.get("$ref", "")
    if reference.startswith("#/"):
        rule = root
        for name in reference[2:].split("/"):
            rule = rule.get(name, {}) if isinstance(rule, dict) else {}
        yield "", reference, rule, data
    if isinstance(data, dict):
        for name, rule in part.get("properties", {}).items():
            if name in data:
                yield f".{name}", f"{pointer}/properties/{name}", rule, data[name]
    if isinstance(data, list) and "items" in part:
        for place, value in enumerate(data):
            yield f"[{place}]", f"{pointer}/items", part["items"], value


def _clean(text: str) -> str:
    return "".join(it if it.isprintable() else "?" for it in text[:TOLD_CHARACTERS_MAX])


def _bytes(text: str) -> int:
    return len(text.encode(errors="replace"))  # half of a surrogate pair is refused elsewhere


def _integer(digits: str) -> float:
    return int(digits) if len(digits) <= DIGITS_MAX else _number(digits)


def _number(text: str) -> float:
    return min(max(float(text), -sys.float_info.max), sys.float_info.max)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it holds {name}")
