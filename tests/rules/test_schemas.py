"""Schemas: what fits is let through, what does not is told by its place, and nothing takes long."""

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.rules.schemas import (
    DIGITS_MAX,
    SCHEMA_BYTES_MAX,
    check_data,
    check_example,
    check_schema,
)

DRAFT = "https://json-schema.org/draft/2020-12/schema"
WORKFLOW = {
    "$schema": DRAFT,
    "type": "object",
    "required": ["workflow", "at"],
    "properties": {
        "workflow": {
            "type": "object",
            "required": ["id"],
            "properties": {"id": {"type": "string", "pattern": "^wf_"}},
        },
        "steps": {"items": {"properties": {"duration": {"type": "integer", "minimum": 0}}}},
        "plan": {"enum": ["free", "team"]},
    },
}


def of_a(rule: Any, **more: Any) -> dict[str, Any]:
    """A schema with a rule for the member `a`."""
    return {"properties": {"a": rule}, **more}


def refusal(schema: Any, data: Any) -> str:
    """Say why data is refused; nothing: it fits. A text is taken as it is."""
    texts = [it if isinstance(it, str) else json.dumps(it) for it in (schema, data)]
    try:
        check_data("a.b", *texts)
    except InputRefused as refused:
        return str(refused)
    return ""


def unusable(schema: Any) -> str:
    with pytest.raises(InputRefused, match=r"^the schema ") as refused:
        check_schema(schema if isinstance(schema, str) else json.dumps(schema))
    return str(refused.value)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"workflow": {"id": "wf_1", "more": 1}, "at": None}, ""),
        ({"at": 1}, '$ lacks "workflow"'),
        (
            {"workflow": {"id": "x"}, "at": 1},
            '$.workflow.id does not fit {"type": "string", "pattern": "^wf_"}',
        ),
        (
            {"workflow": {"id": "wf_1"}, "at": 1, "steps": [{}, {"duration": -1}]},
            '$.steps[1].duration does not fit {"type": "integer", "minimum": 0}',
        ),
        (
            {"workflow": {"id": "wf_1"}, "at": 1, "plan": "gold"},
            '$.plan does not fit {"enum": ["free", "team"]}',
        ),
    ],
)
def test_case_8_what_does_not_fit_is_told_by_its_place(data: Any, problem: str) -> None:
    expected = f"the data of a.b does not fit the schema: {problem}" if problem else ""
    assert refusal(WORKFLOW, data) == expected


def test_a_type_without_a_schema_takes_anything_and_an_unknown_one_nothing() -> None:
    check_data("a.b", "{}", "not looked at")
    with pytest.raises(InputRefused, match=r"order\.paid is not registered.* event-type add order"):
        check_data("order.paid", None, "{}")
    with pytest.raises(InputRefused, match="is not a type: 1 to 128 of"):
        check_data("order paid", None, "{}")


@pytest.mark.parametrize("text", ["", "{", '{"a": NaN}', "[" * 100_000, "\ufeff{}", "nul", "{} {}"])
def test_what_is_no_json_is_refused_and_not_repeated(text: str) -> None:
    why = refusal(WORKFLOW, text)
    assert why.startswith("the data of a.b is")
    assert len(why) < 200


# What a refusal shows of the data.


@pytest.mark.parametrize("values", [3, 100], ids=["few", "many"])
@pytest.mark.parametrize(
    "rule",
    [
        {"additionalProperties": {"type": "null"}},
        {"additionalProperties": {"anyOf": [{"enum": [1]}, {"maxLength": 3}]}},
        {"additionalProperties": {"not": {"type": "string"}}},
        {"additionalProperties": False},
        {"propertyNames": {"maxLength": 1}},
        {"unevaluatedProperties": False},
        {"maxProperties": 1},
        {"const": {}},
    ],
)
def test_the_data_is_not_repeated_however_much_is_wrong(rule: dict[str, Any], values: int) -> None:
    secret = "4111-1111" * 100
    data = {f"k{n}": secret for n in range(values)} | {"k" * 900: secret, "\x1b[2J": secret}
    why = refusal(rule, data)
    assert why
    assert "4111" not in why
    assert len(why) < 500
    assert why.isprintable()


# Numbers as JSON has them.


@pytest.mark.parametrize(
    ("rule", "number", "fits"),
    [
        ({"type": "integer"}, "9" * 400, True),
        ({"type": "integer"}, "9" * (DIGITS_MAX + 1), True),
        ({"type": "integer"}, "1e400", True),
        ({"type": "integer"}, "1.0", True),
        ({"type": "integer"}, "1.5", False),
        ({"type": "integer"}, "true", False),
        ({"maximum": 9007199254740993}, "9007199254740993", True),
        ({"maximum": 9007199254740993}, "9007199254740994", False),
        ({"maximum": 5}, "1e400", False),
        ({"maximum": 5}, "-1e400", True),
        ({"maximum": 5}, "9" * (DIGITS_MAX + 1), False),
        ({"multipleOf": 0.01}, "19.99", True),
        ({"multipleOf": 0.01}, "19.999", False),
        ({"multipleOf": 0.1}, "9" * 400, True),
        ({"uniqueItems": True}, "[1, 1.0]", False),
        ({"uniqueItems": True}, "[1, true, [1], [true], {}]", True),
        ({"uniqueItems": True}, '[{"a": 1, "b": 2}, {"b": 2, "a": 1}]', False),
        ({"const": 1}, "true", False),
    ],
)
def test_numbers_are_judged_as_they_are_written(rule: Any, number: str, fits: bool) -> None:
    assert (refusal(of_a(rule), f'{{"a": {number}}}') == "") is fits


def test_of_a_key_that_is_there_twice_the_last_counts() -> None:
    assert refusal(of_a({"type": "null"}), '{"a": 1, "a": null}') == ""
    assert refusal(of_a({"type": "null"}), '{"a": null, "a": 1}') != ""


values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 6) | st.sampled_from(["a", "b", "type"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(values, st.text())
def test_no_schema_and_no_data_breaks_it(value: Any, text: str) -> None:
    for schema in (value, of_a(value), of_a({"pattern": text}), of_a({"$ref": text})):
        refusal(schema, {"a": text})
    refusal(text, {})
    refusal(WORKFLOW, text)


# What a schema has to be.


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ("", "is no JSON"),
        ('{"a": ', "is no JSON"),
        ("true", "it is no JSON object"),
        ("[]", "it is no JSON object"),
        ({"type": "array"}, "nothing fits it"),
        (of_a({"type": "strng"}), "$.properties.a.type: it is not valid"),
        (of_a({"required": "b"}), '$.properties.a.required: it is not of type "array"'),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "it is not of draft 2020-12"),
        ({"$schema": 5}, "it is not of draft 2020-12"),
        (of_a({"$ref": "#/$defs/b"}), "/$defs/b"),
        (of_a({"$dynamicRef": "https://example.com/x#y"}), "https://example.com/x"),
        (of_a({"$ref": "file:///etc/passwd"}), "/etc/passwd"),
        (of_a({"$ref": "http://127.0.0.1:1/x"}), "http://127.0.0.1:1/x"),
        (of_a({"$ref": "http://[/"}), "http://[/"),
        (of_a({"$id": "http://a.test/b", "$ref": "c"}), "http://a.test/c"),
        (of_a({"pattern": "["}), '$.properties.a.pattern: it is not a "regex"'),
        (of_a({"pattern": "(?=b)"}), 'it is not a "regex"'),
        (of_a({"pattern": r"(.)\1"}), 'it is not a "regex"'),
        (of_a({"pattern": "(?:a{1000}){1000}"}), 'it is not a "regex"'),
        (of_a({"pattern": "(?:[01]{0,300}1){20}"}), 'it is not a "regex"'),
        ({"patternProperties": {"(?!a)": True}}, "regex"),
        ({"description": "é" * SCHEMA_BYTES_MAX}, f"is over {SCHEMA_BYTES_MAX:,} bytes"),
        ('{"not": ' * 30_000, "bytes"),
        ("[" * 30_000, "is nested too deeply"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused(schema: Any, why: str) -> None:
    told = unusable(schema)
    assert why in told
    assert len(told) < 500


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"$schema": DRAFT},
        {"$schema": f"{DRAFT}#"},
        {"type": ["object", "null"]},
        of_a({"format": "date-time", "x-mine": {"anything": 1}}),
        of_a({"pattern": r"^\p{L}+\/é$"}),
        of_a({"$ref": "#/$defs/b"}, **{"$defs": {"b": {"type": "string"}}}),
        of_a({"$ref": "b"}, **{"$id": "http://a.test/a", "$defs": {"b": {"$id": "b"}}}),
    ],
)
def test_other_schemas_are_taken(schema: Any) -> None:
    check_schema(json.dumps(schema))


def test_a_schema_that_refers_to_itself_is_followed() -> None:
    tree = of_a({"$ref": "#"}, **{"$schema": DRAFT, "type": "object", "minProperties": 1})
    tree["properties"]["p"] = {"pattern": "(a+)+$"}
    assert refusal(tree, {"a": {"a": {"a": {"p": "aa"}}}}) == ""
    assert "$.a does not fit" in refusal(tree, {"a": {"a": {"a": {}}}})
    assert refusal(tree, {"a": {"a": {"p": "a" * 40 + "!"}}})
    named = {"$ref": "#/$defs/b", "$defs": {"b": of_a({"items": {"$ref": "#/$defs/b"}})}}
    assert "$.a[1] does not fit" not in refusal(named, {"a": [{}, {"a": []}]})
    wrong = {"$ref": "#/$defs/b", "$defs": {"b": of_a({"items": {"type": "null"}})}}
    assert '$.a[1] does not fit {"type": "null"}' in refusal(wrong, {"a": [None, 1]})
    assert refusal({"$ref": "#"}, {}) == "", "a circle says nothing"


@pytest.mark.parametrize(
    ("schema", "example", "why"),
    [
        (None, "[]", "the example is no JSON object"),
        (None, "{", "the example is no JSON"),
        (WORKFLOW, "{}", 'the example does not fit the schema: $ lacks "workflow"'),
    ],
)
def test_an_example_has_to_fit(schema: Any, example: str, why: str) -> None:
    with pytest.raises(InputRefused) as refused:
        check_example(None if schema is None else json.dumps(schema), example)
    assert str(refused.value).startswith(why)
    check_example(None, "{}")
    check_example(json.dumps(WORKFLOW), '{"workflow": {"id": "wf_1"}, "at": 1}')


# How long it takes.

MIB = 1 << 20


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ({"pattern": "(a+)+$"}, "a" * MIB + "!"),
        ({"pattern": "(?:[01]{0,60}1){4}x"}, "01" * (MIB // 2)),
        ({"patternProperties": {"(a|aa)+$": False}}, {"a" * MIB + "!": 1}),
        ({"uniqueItems": True}, [{"n": n} for n in range(50_000)]),
        ({"anyOf": [{"items": {"type": "string"}}, {"items": {"type": "null"}}]}, [1] * (MIB // 3)),
        ({"anyOf": [{"propertyNames": {"maxLength": 1}}]}, {str(n): 1 for n in range(99, 90_000)}),
        (
            {"allOf": [{"additionalProperties": True}], "unevaluatedProperties": False},
            {str(n): 1 for n in range(50_000)},
        ),
        ({"items": {"enum": list(range(5_000))}}, [4_999] * 50_000),
    ],
)
def test_hostile_data_is_done_with_soon(rule: Any, value: Any) -> None:
    """Each would take minutes, or gigabytes, done another way."""
    refusal(of_a(rule), {"a": value})


def test_what_doubles_with_each_level_does_not_double_the_time() -> None:
    doubling = {
        "anyOf": [of_a({"$ref": "#"}, required=["b"]), of_a({"$ref": "#"})],
        "properties": {"z": {"type": "null"}},
    }
    for depth in (10, 20, 40):
        assert refusal(doubling, '{"a": ' * depth + '{"z": 1}' + "}" * depth)


def test_data_nested_deeply_is_checked_or_refused() -> None:
    tree = of_a({"$ref": "#"})
    assert refusal(tree, '{"a": ' * 60 + "{}" + "}" * 60) == ""
    depth = sys.getrecursionlimit() + 50
    assert "nested too deeply" in refusal(tree, '{"a": ' * depth + "{}" + "}" * depth)


def test_who_checks_nothing_does_not_load_the_library() -> None:
    program = "import sys, aetherflow_hooks.cli; sys.exit('jsonschema_rs' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
