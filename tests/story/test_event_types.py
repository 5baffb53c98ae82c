"""Event types: the catalogue that customers read, and events that are held to it."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from aetherflow_hooks import emit
from aetherflow_hooks.db.statements import migrations
from aetherflow_hooks.dev.demo import Demo
from aetherflow_hooks.errors import InputRefused, NotFound
from aetherflow_hooks.manage import event_types
from aetherflow_hooks.manage.event_types import (
    add_event_type,
    change_event_type,
    delete_event_type,
    list_event_types,
    show_event_type,
)
from aetherflow_hooks.manage.events import emit_event
from aetherflow_hooks.rules.schemas import check_data, check_example, check_schema
from aetherflow_hooks.rules.topics import CATALOGUE
from tests.conftest import PG_JSONSCHEMA, World, settings_for
from tests.contract.test_cli import failed, our_log_as_it_was, run  # noqa: F401  one is a fixture
from tests.contract.test_readme import blocks

SCHEMA = """{
  "required": ["amount", "currency"],
  "properties": {"amount": {"type": "number", "exclusiveMinimum": 0}}
}
"""
EXAMPLE = '{"amount": 12.50, "currency": "EUR"}'
DOCUMENTED = {  # as AetherFlow's customers read it
    "workflow.completed": {
        "workflow": {
            "id": "wf_abc123",
            "name": "Email Processor",
            "status": "completed",
            "execution_time": 2500,
            "executed_at": "2024-01-15T10:29:57Z",
        },
        "steps": [
            {"id": "step_1", "name": "Process Email", "status": "completed", "duration": 1200},
            {
                "id": "step_2",
                "name": "Send Slack Notification",
                "status": "completed",
                "duration": 1300,
            },
        ],
        "custom_data": {"email_subject": "Important Update", "priority": "high"},
    },
    "workflow.failed": {
        "workflow": {
            "id": "wf_def456",
            "name": "Data Sync",
            "status": "failed",
            "error_message": "Integration timeout",
            "failed_at": "2024-01-15T10:34:45Z",
        },
        "error_details": {
            "step": "step_3",
            "integration": "salesforce",
            "error_code": "TIMEOUT",
            "retry_count": 3,
        },
    },
}


async def refused(doing: Any) -> str:
    with pytest.raises(InputRefused) as why:
        await doing
    return str(why.value)


# AetherFlow's own.


@pytest.mark.parametrize("event_type", CATALOGUE)
async def test_a_type_of_aetherflow_is_explained_from_the_start(
    world: World, event_type: str
) -> None:
    found = await show_event_type(world.database, event_type)
    assert found["description"] == CATALOGUE[event_type]
    assert found["is_built_in"] is True
    assert found["deprecated_at"] is None
    check_schema(found["schema"])
    check_example(found["schema"], found["example"])
    # Lenient: a release may send more, but not without what the event is about.
    example = json.loads(found["example"])
    (kind, *_) = example
    assert event_type.startswith(f"{kind}.")
    check_data(event_type, found["schema"], json.dumps({**example, "more": [1]}))
    check_data(event_type, found["schema"], json.dumps({kind: {**example[kind], "more": None}}))
    wrongs: list[dict[str, Any]] = [{}, {kind: []}, {kind: None}]
    for wrong in wrongs:
        with pytest.raises(InputRefused, match="does not fit the schema"):
            check_data(event_type, found["schema"], json.dumps(wrong))
    if event_type in DOCUMENTED:
        assert example == DOCUMENTED[event_type]


async def test_what_the_demo_sends_fits(world: World) -> None:
    async with Demo(settings_for(world.dsn)) as demo:
        arrivals = await demo.emit_all()
    assert [arrival.event for arrival in arrivals] == list(CATALOGUE)
    for row in await world.rows("select type, data from aetherflow.events"):
        check_data(row["type"], await schema_of(world, row["type"]), row["data"])


async def schema_of(world: World, event_type: str) -> Any:
    return await world.value("select aetherflow.schema_of($1)", event_type)


async def test_what_customers_were_promised_can_be_deprecated_and_no_more(world: World) -> None:
    for change in ({"schema": None}, {"description": "x"}, {"example": "{}", "deprecated": True}):
        told = await refused(change_event_type(world.database, "user.joined", change))  # type: ignore[arg-type]
        assert told == "user.joined is AetherFlow's own: it can be deprecated, no more"
    told = await refused(delete_event_type(world.database, "user.joined"))
    assert told == "user.joined is AetherFlow's own: it can be deprecated, not deleted"
    before = await show_event_type(world.database, "user.joined")
    assert before["deprecated_at"] is None
    after = await change_event_type(world.database, "user.joined", {"deprecated": True})
    assert {name for name in after if after[name] != before[name]} == {
        *("deprecated_at", "updated_at")
    }


# The application's own.


async def test_an_application_registers_changes_deprecates_and_deletes_its_types(
    world: World,
) -> None:
    database = world.database
    added = await add_event_type(
        database, "order.paid", description="Paid.", schema=SCHEMA, example=EXAMPLE
    )
    assert added == await show_event_type(database, "order.paid")
    assert (added["schema"], added["example"], added["is_built_in"]) == (SCHEMA, EXAMPLE, False)
    changed = await change_event_type(database, "order.paid", {"description": "Was paid."})
    assert (changed["schema"], changed["description"]) == (SCHEMA, "Was paid.")
    assert changed["updated_at"] > added["updated_at"]
    assert changed["created_at"] == added["created_at"]
    deprecated = await change_event_type(database, "order.paid", {"deprecated": True})
    later = await change_event_type(database, "order.paid", {"example": None, "deprecated": True})
    assert deprecated["deprecated_at"] == later["deprecated_at"] is not None
    assert later["example"] is None
    assert len(await list_event_types(database)) == 13
    (told,) = await list_event_types(database, deprecated=True)
    assert (told["type"], told["has_schema"]) == ("order.paid", True)
    assert [row["type"] for row in await list_event_types(database, deprecated=False)] == sorted(
        CATALOGUE
    )
    again = await change_event_type(database, "order.paid", {"deprecated": False})
    assert again["deprecated_at"] is None
    await delete_event_type(database, "order.paid")
    with pytest.raises(NotFound, match="there is no event type order"):
        await show_event_type(database, "order.paid")
    await add_event_type(database, "order.paid")


@pytest.mark.parametrize(
    ("event_type", "given", "why"),
    [
        ("order paid", {}, "is not a type: 1 to 128"),
        ("order.*", {}, "is not a type"),
        ("aetherflow.order", {}, "is not for applications"),
        ("user.joined", {}, "user.joined is registered already: change it"),
        ("order.paid", {"description": "x" * 1_001}, "the description is over 1,000 characters"),
        ("order.paid", {"description": "\x00"}, "Postgres cannot take a value"),
        ("order.paid", {"schema": "{"}, "the schema cannot be used: it is no JSON"),
        ("order.paid", {"schema": '{"$ref": "http://a.test/b"}'}, "http://a.test/b"),
        ("order.paid", {"schema": '{"title": "\ud800"}'}, "UTF-8"),
        ("order.paid", {"example": "[]"}, "the example is no JSON object"),
        ("order.paid", {"example": '"' + "x" * 65_536 + '"'}, "the example is over 65,536 bytes"),
        ("order.paid", {"schema": SCHEMA, "example": "{}"}, '$ lacks "amount", "currency"'),
    ],
)
async def test_what_breaks_a_rule_is_not_registered(
    world: World, event_type: str, given: dict[str, str], why: str
) -> None:
    assert why in await refused(add_event_type(world.database, event_type, **given))
    assert len(await list_event_types(world.database)) == 12


async def test_a_change_that_breaks_a_rule_changes_nothing(world: World) -> None:
    await add_event_type(world.database, "order.paid", schema=SCHEMA, example=EXAMPLE)
    before = await show_event_type(world.database, "order.paid")
    for change in ({"schema": '{"required": ["id"]}'}, {"example": "{}"}, {"schema": "nothing"}):
        await refused(change_event_type(world.database, "order.paid", change))  # type: ignore[arg-type]
    assert await show_event_type(world.database, "order.paid") == before
    for doing in (
        change_event_type(world.database, "a.b", {}),
        delete_event_type(world.database, "a"),
    ):
        with pytest.raises(NotFound):
            await doing


async def test_changes_at_once_are_all_made(world: World) -> None:
    await add_event_type(world.database, "order.paid")
    changes: list[event_types.EventTypeChange] = [
        {"schema": SCHEMA},
        {"example": EXAMPLE},
        {"description": "Paid."},
        {"deprecated": True},
    ]
    await asyncio.gather(
        *(change_event_type(world.database, "order.paid", change) for change in changes)
    )
    found = await show_event_type(world.database, "order.paid")
    assert (found["schema"], found["example"], found["description"]) == (SCHEMA, EXAMPLE, "Paid.")
    assert found["deprecated_at"] is not None


async def test_a_catalogue_has_its_bound(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_types, "TYPES_MAX", 2)
    for name in ("a", "b"):
        await add_event_type(world.database, name)
    assert "2 types already" in await refused(add_event_type(world.database, "c"))


# Emitting.


async def test_case_8_data_that_breaks_its_schema_is_refused_and_the_place_is_named(
    world: World,
) -> None:
    await add_event_type(world.database, "order.paid", schema=SCHEMA)
    bad = {"amount": -1, "currency": "EUR"}
    rule = '{"type": "number", "exclusiveMinimum": 0}'
    why = f"the data of order.paid does not fit the schema: $.amount does not fit {rule}"
    assert await refused(emit(world.connection, "order.paid", bad, validate=True)) == why
    text = json.dumps(bad)
    assert await refused(emit_event(world.database, "order.paid", text, validate=True)) == why
    assert await world.value("select count(*) from aetherflow.events") == 0
    # Who does not ask for it is not held up.
    await emit(world.connection, "order.paid", bad)
    await emit_event(world.database, "order.paid", text)


async def test_a_refusal_leaves_the_callers_transaction_as_it_was(world: World) -> None:
    await world.endpoint()
    async with world.connection.transaction():
        await refused(emit(world.connection, "user.joined", {}, validate=True))
        event_id = await emit(world.connection, "user.joined", {"user": {"id": "u"}}, validate=True)
    async with world.engine():
        (request,) = await world.receiver.wait_for(1)
        await world.settled()
    assert request.headers["webhook-id"] == event_id


async def test_what_was_checked_is_sent_byte_for_byte(world: World) -> None:
    await add_event_type(
        world.database, "a.b", schema='{"properties": {"n": {"type": "integer", "minimum": 1}}}'
    )
    await world.endpoint()
    data = '{ "n": 123456789012345678901234567890, "x":1e400,"é":"\\u00e9\\/","n":1.0E0, "n" : 7}'
    async with world.engine():
        await emit(world.connection, "a.b", data, validate=True)
        await emit(world.connection, "a.b", data.encode(), validate=True)
        await emit_event(world.database, "a.b", data, validate=True)
        requests = await world.receiver.wait_for(3)
        await world.settled()
    for request in requests:
        assert request.body.decode().endswith(f'"data":{data}}}')


async def test_a_type_that_nobody_registered_cannot_be_checked(world: World) -> None:
    for doing in (
        emit(world.connection, "order.paid", {}, validate=True),
        emit_event(world.database, "order.paid", "{}", validate=True),
    ):
        told = await refused(doing)
        assert "`aetherflow-hooks event-type add order.paid`" in told
    await add_event_type(world.database, "order.paid")  # without a schema
    await emit(world.connection, "order.paid", {"anything": 1}, validate=True)
    with pytest.raises(asyncpg.InvalidParameterValueError, match="must be a JSON object"):
        await emit(world.connection, "order.paid", "[]", validate=True)


async def test_a_change_holds_from_the_next_event_on(world: World) -> None:
    await add_event_type(world.database, "order.paid", schema=SCHEMA)
    await refused(emit(world.connection, "order.paid", {}, validate=True))
    await change_event_type(world.database, "order.paid", {"schema": '{"maxProperties": 0}'})
    await emit(world.connection, "order.paid", {}, validate=True)
    await change_event_type(world.database, "order.paid", {"deprecated": True})
    await emit(world.connection, "order.paid", {}, validate=True)
    await refused(emit(world.connection, "order.paid", {"a": 1}, validate=True))


async def test_a_schema_that_was_written_past_us_refuses_and_breaks_nothing(world: World) -> None:
    await world.connection.execute(
        'update aetherflow.event_types set schema = \'{"$ref": "http://a.test/"}\''
    )
    told = await refused(emit(world.connection, "user.joined", {}, validate=True))
    assert told.startswith("the schema of user.joined cannot be used: it is no JSON Schema")


async def test_who_may_only_emit_is_held_to_schemas_too(world: World) -> None:
    await world.connection.execute(
        "create role hooks_types_app login; select aetherflow.grant_emit('hooks_types_app')"
    )
    app = await asyncpg.connect(world.dsn.replace("postgres@", "hooks_types_app@", 1))
    try:
        await emit(app, "user.joined", {"user": {"id": "u"}}, validate=True)
        await refused(emit(app, "user.joined", {}, validate=True))
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app.fetchval("select schema from aetherflow.event_types")
    finally:
        await app.close()
        await world.connection.execute("drop owned by hooks_types_app; drop role hooks_types_app")


async def test_sql_alone_holds_events_to_schemas_as_the_readme_shows(world: World) -> None:
    (shown,) = [text for text in blocks("sql") if "schema_of" in text]
    await world.connection.execute(PG_JSONSCHEMA + ";" + shown)
    assert await world.value("select count(*) from aetherflow.events") == 1
    call = "select emit_valid($1, $2)"
    for event_type, data in (("workflow.completed", "{}"), ("order.paid", '{"workflow": {}}')):
        with pytest.raises(asyncpg.RaiseError, match="is not registered, or its data does not fit"):
            await world.value(call, event_type, data)
    await add_event_type(world.database, "order.paid")
    data = '{"b":1,  "a":2}'
    event_id = await world.value(call, "order.paid", data)
    kept = "select data from aetherflow.events where id = $1"
    assert await world.value(kept, event_id) == data


async def test_who_could_emit_before_can_ask_for_schemas_after_an_upgrade(world: World) -> None:
    granted = (
        "select has_function_privilege('hooks_types_old', 'aetherflow.schema_of(text)', 'execute')"
    )
    connection = world.connection
    text = next(text for _, name, text in migrations() if name.endswith("_event_types"))
    transaction = connection.transaction()  # rolled back, since a role outlives its database
    await transaction.start()
    await connection.execute("create role hooks_types_old")
    await connection.execute(
        "grant execute on all functions in schema aetherflow to hooks_types_old"
    )
    await connection.execute("revoke execute on function aetherflow.schema_of from hooks_types_old")
    assert not await connection.fetchval(granted)
    await connection.execute(text[text.rindex("do $$") :])
    assert await connection.fetchval(granted)
    await transaction.rollback()


# On the command line.


def test_the_life_of_a_type_on_the_command_line(dsn: str, tmp_path: Path) -> None:
    schema, example = tmp_path / "schema.json", tmp_path / "example.json"
    schema.write_text(SCHEMA)
    example.write_text(EXAMPLE)

    def hooks(*arguments: str, stdin: str = "") -> Any:
        return run(*arguments, "--dsn", dsn, stdin=stdin)

    add = ["event-type", "add", "order.paid", "--description", "Paid.", "--example", str(example)]
    added = hooks(*add, "--schema", "-", "--json", stdin=SCHEMA).json
    assert (added["schema"], added["example"], added["description"]) == (SCHEMA, EXAMPLE, "Paid.")
    assert "registered already" in failed(hooks(*add))
    assert "cannot be read" in failed(hooks(*add[:3], "--schema", str(tmp_path / "none")))
    assert "by stdin" in failed(hooks(*add[:3], "--schema", "-", "--example", "-"))
    assert len(hooks("event-type", "list", "--json").json) == 13
    assert re.search(
        r"^order\.paid +Paid\. +False +True +-$", hooks("event-type", "list").out, re.MULTILINE
    )
    shown = hooks("event-type", "show", "order.paid").out
    assert '  "required": ["amount", "currency"],\n' in shown
    assert shown.endswith(f"\nexample\n  {EXAMPLE}\n")
    emitted = ["emit", "order.paid", "--validate"]
    assert hooks(*emitted, EXAMPLE).out.startswith("evt_")
    assert failed(hooks(*emitted, "{}")).endswith('the schema: $ lacks "amount", "currency"')
    change = ["event-type", "change", "order.paid"]
    assert "nothing is to be changed" in failed(hooks(*change))
    assert "given and removed" in failed(
        hooks(*change, "--schema", str(schema), "--remove", "schema")
    )
    assert hooks(*change, "--deprecated", "--json").json["deprecated_at"]
    changed = hooks(*change, "--no-deprecated", "--remove", "schema", "--remove", "example")
    assert "deprecated_at  -" in " ".join(changed.out.split("\n"))
    assert hooks(*emitted, "{}").code == 0
    assert hooks("event-type", "delete", "order.paid").out == "order.paid deleted\n"
    assert "there is no event type" in failed(hooks("event-type", "show", "order.paid"))
    assert "not deleted" in failed(hooks("event-type", "delete", "user.joined"))
    assert [row["type"] for row in hooks("event-type", "list", "--deprecated", "--json").json] == []


def test_no_control_character_of_a_type_reaches_the_terminal(dsn: str) -> None:
    nasty = json.dumps({"title": "\x1b[2J\u202e"}, ensure_ascii=False)
    add = ["event-type", "add", "a.b", "--description", "\x1b[2J", "--schema", "-", "--dsn", dsn]
    for said in (
        run(*add, stdin=nasty.replace("\x1b", "\\u001b")),
        run("event-type", "list", "--dsn", dsn),
    ):
        assert said.code == 0, said.err
        assert said.out.replace("\n", "").isprintable()
    assert orjson.loads(run("event-type", "show", "a.b", "--json", "--dsn", dsn).out)
