"""The surface: what others may import, what is logged, and how the house is built."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import aetherflow_hooks
from aetherflow_hooks import errors
from aetherflow_hooks.watch.log import LogEvent

PACKAGE = Path(aetherflow_hooks.__file__).parent
SOURCES = {
    str(file.relative_to(PACKAGE)): file.read_text("utf-8") for file in PACKAGE.rglob("*.py")
}

PUBLIC = {
    "Engine": None,
    "HooksError": None,
    "NewEvent": "type data tenant idempotency_key deliver_at expires_at ordering_key channels",
    "Settings": None,
    "emit": "connection type data tenant idempotency_key deliver_at expires_at ordering_key"
    " channels validate schema",
    "emit_many": "connection events schema",
    "load_config": "file environment given",
    "migrate": "settings",
    "start_engine": "config dsn migrate restored",
    "verify": "body headers secret tolerance_seconds now_unix_seconds",
}


def test_the_public_names_are_these_and_few() -> None:
    assert set(aetherflow_hooks.__all__) == set(PUBLIC)
    assert list(aetherflow_hooks.__all__) == sorted(aetherflow_hooks.__all__)
    assert len(PUBLIC) <= 10


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_is_there_and_explained(name: str) -> None:
    value = getattr(aetherflow_hooks, name)
    assert value.__doc__
    takes = PUBLIC[name]
    if takes is not None:
        assert list(inspect.signature(value).parameters) == takes.split()


def test_an_engine_is_reloaded_stopped_or_left() -> None:
    public = {name for name in vars(aetherflow_hooks.Engine) if not name.startswith("_")}
    assert public == {"reload", "stop", "stuck"}
    assert {"__aenter__", "__aexit__"} <= set(vars(aetherflow_hooks.Engine))


def drawn(text: str) -> Iterator[tuple[int, str]]:
    """Give depth and name of each line of a drawn tree."""
    for line in text.splitlines():
        if found := re.match(r"(?P<branch>[│├└─ ]*)(?P<name>[A-Z]\w+)\b", line):
            yield len(found["branch"]) // 4, found["name"]


def test_every_error_stands_in_the_drawn_tree_where_it_belongs() -> None:
    assert errors.__doc__
    _, _, tree = errors.__doc__.partition("\n\n")
    parents: list[str] = []
    drawn_bases = {}
    for depth, name in drawn(tree):
        parents[depth:] = [name]
        drawn_bases[name] = parents[depth - 1] if depth else "Exception"
    bases = {
        name: value.__bases__[0].__name__
        for name, value in vars(errors).items()
        if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert drawn_bases == bases


def calls_of_log(text: str) -> Iterator[ast.Call]:
    """Give every call that writes a line: log.info(…), log.log.debug(…), …"""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Call(
                func=ast.Attribute(
                    value=ast.Name(id="log") | ast.Attribute(attr="log"),
                    attr="debug" | "info" | "warning" | "error" | "exception" | "critical",
                )
            ):
                yield node


def test_only_events_of_the_closed_list_are_logged() -> None:
    loose = [
        f"{file}:{call.lineno}"
        for file, text in SOURCES.items()
        for call in calls_of_log(text)
        if not (call.args and re.fullmatch(r"(log\.)?LogEvent\.[A-Z_]+", ast.unparse(call.args[0])))
    ]
    assert sum(len(list(calls_of_log(text))) for text in SOURCES.values()) > 10
    assert loose == []


def test_every_event_of_the_list_is_logged_somewhere() -> None:
    used = {
        found
        for file, text in SOURCES.items()
        if file != "watch/log.py"
        for found in re.findall(r"\bLogEvent\.([A-Z_]+)", text)
    }
    assert used == set(LogEvent.__members__)
    for event in LogEvent:
        assert re.fullmatch(r"[a-z]+\.[a-z_]+", event)
        assert event.name == event.value.replace(".", "_").upper()


def test_nothing_is_printed_past_the_log_and_the_command_line() -> None:
    printing = [
        f"{file}:{node.lineno}"
        for file, text in SOURCES.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"print", "logging.info"}
    ]
    assert printing == []


@pytest.mark.parametrize("folder", ["flow", "rules", "db", "manage", "cli"])
def test_no_file_is_longer_than_can_be_read_in_one_go(folder: str) -> None:
    lengths = {
        file: len(text.splitlines())
        for file, text in SOURCES.items()
        if file.startswith(f"{folder}/")
    }
    assert lengths
    assert {file: length for file, length in lengths.items() if length > 400} == {}


def test_every_module_says_what_it_is() -> None:
    assert [file for file, text in SOURCES.items() if not ast.get_docstring(ast.parse(text))] == []


def test_a_01_every_socket_of_a_delivery_is_made_in_one_place() -> None:
    """What opens connections by itself would go past the guard."""
    opening = re.compile(
        r"socket\.socket\(|create_connection\(|open_connection\(|ClientSession\(|getaddrinfo\("
        r"|urlopen|import http\.client|import requests"
    )
    found = {
        (file, match[0].rstrip("("))
        for file, text in SOURCES.items()
        if not file.startswith(("dev/",))
        for match in opening.finditer(text)
    }
    assert found == {
        ("http/connections.py", "socket.socket"),  # behind the guard
        ("http/connections.py", "create_connection"),  # aiohttp's own, which asks it
        ("http/client.py", "ClientSession"),  # whose connector it is
        ("http/names.py", "getaddrinfo"),
        ("db/database.py", "getaddrinfo"),  # of the DSN, to keep deliveries from it
        ("watch/supervisor.py", "socket.socket"),  # a datagram to systemd
    }
