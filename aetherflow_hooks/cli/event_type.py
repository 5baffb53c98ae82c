"""event-type: the catalogue that customers read, and the schemas of what is emitted."""

from pathlib import Path
from typing import Any, cast

import click

from aetherflow_hooks.cli.session import (
    as_json,
    connected,
    from_file,
    plain,
    print_fields,
    print_json,
    print_rows,
    standard_input,
    with_database,
)
from aetherflow_hooks.config import Settings
from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.manage import event_types, versions

SHORT = ("type", "description", "is_built_in", "has_schema", "deprecated_at")
TEXTS = ("schema", "example")
VERSION_SHORT = ("version", "description", "expression", "created_at")

given = click.Path(path_type=Path, dir_okay=False, allow_dash=True)
description_option = click.option("--description", help="What it tells, for customers.")
schema_option = click.option(
    "--schema", type=given, metavar="FILE or -", help="The JSON Schema of its data, draft 2020-12."
)
example_option = click.option(
    "--example", type=given, metavar="FILE or -", help="Data that fits, a JSON object."
)


@click.group("event-type")
def event_type() -> None:
    """Event types: what may be emitted, and what its data looks like."""


@event_type.command("list")
@click.option(
    "--deprecated/--no-deprecated", default=None, help="Only those that are, or that are not."
)
@as_json
@connected
def list_(settings: Settings, deprecated: bool | None, as_json: bool) -> None:
    """List the catalogue: AetherFlow's types and the application's own."""
    rows = with_database(
        settings, lambda db, _: event_types.list_event_types(db, deprecated=deprecated)
    )
    print_rows(rows, SHORT, as_json=as_json)


@event_type.command()
@click.argument("name", metavar="TYPE")
@as_json
@connected
def show(settings: Settings, name: str, as_json: bool) -> None:
    """Print a type with the schema and the example of its data."""
    found = with_database(settings, lambda db, _: event_types.show_event_type(db, name))
    _print_one(found, as_json=as_json)


@event_type.command()
@click.argument("name", metavar="TYPE")
@description_option
@schema_option
@example_option
@as_json
@connected
def add(
    settings: Settings,
    name: str,
    description: str | None,
    schema: Path | None,
    example: Path | None,
    as_json: bool,
) -> None:
    """Register TYPE, so that customers can read of it and its data can be checked."""
    texts = _texts(schema=schema, example=example)
    added = with_database(
        settings,
        lambda db, _: event_types.add_event_type(db, name, description=description or "", **texts),
    )
    _print_one(added, as_json=as_json)


@event_type.command()
@click.argument("name", metavar="TYPE")
@description_option
@schema_option
@example_option
@click.option(
    "--remove", multiple=True, type=click.Choice(TEXTS), help="Let it have none from now on."
)
@click.option(
    "--deprecated/--no-deprecated",
    default=None,
    help="Tell customers not to rely on it; it can be emitted all the same.",
)
@as_json
@connected
def change(
    settings: Settings,
    name: str,
    description: str | None,
    schema: Path | None,
    example: Path | None,
    remove: tuple[str, ...],
    deprecated: bool | None,
    as_json: bool,
) -> None:
    """Change a type; what is not named stays as it is."""
    wanted: dict[str, Any] = {**_texts(schema=schema, example=example)}
    for text in remove:
        if text in wanted:
            raise InputRefused(f"--{text} is given and removed at once")
        wanted[text] = None
    if description is not None:
        wanted["description"] = description
    if deprecated is not None:
        wanted["deprecated"] = deprecated
    if not wanted:
        raise InputRefused("nothing is to be changed: see --help for what can be")
    changed = with_database(
        settings,
        lambda db, _: event_types.change_event_type(
            db, name, cast("event_types.EventTypeChange", wanted)
        ),
    )
    _print_one(changed, as_json=as_json)


@event_type.command()
@click.argument("name", metavar="TYPE")
@connected
def delete(settings: Settings, name: str) -> None:
    """Take a type of the application's own out of the catalogue."""
    with_database(settings, lambda db, _: event_types.delete_event_type(db, name))
    click.echo(f"{name} deleted")


@event_type.group()
def version() -> None:
    """Versions: how data looked before it was changed, for endpoints that ask for it."""


@version.command("list")
@click.argument("name", metavar="TYPE")
@as_json
@connected
def list_versions(settings: Settings, name: str, as_json: bool) -> None:
    """List the versions of TYPE; each is made of the next one, the last of what is emitted."""
    rows = with_database(settings, lambda db, _: versions.list_versions(db, name))
    print_rows(rows, VERSION_SHORT, as_json=as_json)


@version.command("add")
@click.argument("name", metavar="TYPE")
@click.argument("version_name", metavar="VERSION")
@click.argument("expression", metavar="EXPRESSION or -")
@click.option("--description", default="", help="What was changed after it.")
@as_json
@connected
def add_version(
    settings: Settings,
    name: str,
    version_name: str,
    expression: str,
    description: str,
    as_json: bool,
) -> None:
    """Register what data of TYPE was like up to VERSION, and print what it makes of the example.

    EXPRESSION is SQL over `data`, as it is today: "data - 'new' || jsonb_set('{}', '{old}',
    data->'new')". See "Versions" in the README for what may stand in it.
    """
    text = standard_input().strip() if expression == "-" else expression
    added = with_database(
        settings,
        lambda db, _: versions.add_version(db, name, version_name, text, description=description),
    )
    if as_json:
        print_json(added)
    else:
        print_fields(added)


@version.command("delete")
@click.argument("name", metavar="TYPE")
@click.argument("version_name", metavar="VERSION")
@connected
def delete_version(settings: Settings, name: str, version_name: str) -> None:
    """Forget the first or the last version of TYPE; endpoints that got it get the next one."""
    with_database(settings, lambda db, _: versions.delete_version(db, name, version_name))
    click.echo(f"{name} {version_name} deleted")


def _texts(**files: Path | None) -> dict[str, str]:
    """Read the files that are given, by what they hold."""
    named = {what: file for what, file in files.items() if file is not None}
    if [str(file) for file in named.values()].count("-") > 1:
        raise InputRefused("only one of --schema and --example can come by stdin")
    return {
        what: standard_input() if str(file) == "-" else from_file(f"the {what}", file)
        for what, file in named.items()
    }


def _print_one(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    print_fields({name: value for name, value in found.items() if name not in TEXTS})
    for name in TEXTS:
        if found[name] is not None:
            click.echo(f"\n{name}")
            for line in found[name].splitlines():
                click.echo(f"  {plain(line.expandtabs(4))}")
