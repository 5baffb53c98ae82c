"""Filters: which events an endpoint gets by what their data says, and what cannot be a filter."""

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from aetherflow_hooks.errors import InputRefused, NotFound
from aetherflow_hooks.manage.endpoints import (
    list_endpoints,
    show_endpoint,
)
from aetherflow_hooks.manage.events import show_event
from aetherflow_hooks.manage.filters import stored_filter
from aetherflow_hooks.manage.replays import NewReplay, count_replay, show_replay, start_replay
from tests.conftest import World

NESTED = '{"a":' * 20_000 + "1" + "}" * 20_000  # too deep, where max_stack_depth is as usual
HUGE = '{"amount": 1e200000}'  # a JSON number that Postgres' own cannot hold


def arrived(world: World, path: str) -> list[Any]:
    """Give the data of what came, in the order of its coming."""
    return [json.loads(request.body)["data"] for request in world.receiver.at(path)]


async def test_case_13_only_what_fulfils_the_filter_arrives(world: World) -> None:
    await world.endpoint("/some", filter="$.amount > 100")
    everything = await world.endpoint("/all")
    async with world.engine():
        small = await world.emit(data='{"amount": 50}')
        await world.emit(data='{"amount": 150}')
        await world.settled()
        shown = await show_event(world.database, small)
    assert arrived(world, "/some") == [{"amount": 150}]
    assert sorted(it["amount"] for it in arrived(world, "/all")) == [50, 150]
    assert [it["endpoint_id"] for it in shown["deliveries"]] == [everything["id"]]


# A filter, the data that it lets through, and the data that it does not.
LANGUAGE: list[tuple[str, list[str], list[str]]] = [
    ("$.n == 1", ['{"n":1}', '{"n":1.0}', '{"n":[0,1]}'], ['{"n":"1"}', '{"n":2}', "{}"]),
    ("$.n != 1", ['{"n":2}'], ['{"n":1}', '{"m":2}', '{"n":"1"}', '{"n":{}}']),
    ("$.n <> null", ['{"n":2}', '{"n":"x"}', '{"n":false}'], ['{"n":null}', "{}"]),
    ("$.n == null", ['{"n":null}'], ['{"n":0}', "{}"]),
    ("$.n < 2", ['{"n":1}', '{"n":-1e9}'], ['{"n":2}', '{"n":"1"}', '{"n":null}']),
    ("$.n <= 2", ['{"n":2}'], ['{"n":2.0001}']),
    ("$.n >= -2.5", ['{"n":-2.5}'], ['{"n":-3}', '{"n":[]}']),
    ("100 < $.n", ['{"n":101}'], ['{"n":100}', '{"n":true}']),
    (
        "$.n == 12345678901234567890123",
        ['{"n":12345678901234567890123}'],
        ['{"n":12345678901234567890124}'],
    ),
    ('$.s == "é\\u0041\\""', ['{"s":"\\u00e9A\\""}'], ['{"s":"é"}']),
    ('$.s > "b"', ['{"s":"ba"}', '{"s":"é"}'], ['{"s":"B"}', '{"s":3}']),
    ('$.s starts with "ab"', ['{"s":"abc"}', '{"s":["x","ab"]}'], ['{"s":"xab"}', '{"s":1}']),
    ("$.b == true", ['{"b":true}'], ['{"b":"true"}', '{"b":1}', '{"b":false}']),
    ("$.a.b.c == 1", ['{"a":{"b":[{"c":2},{"c":1}]}}'], ['{"a":{"b":1}}', '{"a":{"c":1}}']),
    ('$."a b"."$" == 1', ['{"a b":{"$":1}}'], ['{"a":1}']),
    ("$.a[*].d > 9", ['{"a":[{"d":1},{"d":10}]}', '{"a":{"d":10}}'], ['{"a":[]}', '{"a":[{}]}']),
    ("$.a[0] == 1", ['{"a":[1,2]}', '{"a":1}'], ['{"a":[2,1]}', '{"a":[]}']),
    ("$.a[last] == 1", ['{"a":[2,1]}'], ['{"a":[1,2]}']),
    ("$.a[1 to 2] == 1", ['{"a":[0,0,1]}'], ['{"a":[1,0,0,1]}']),
    ("$.* == 1", ['{"x":0,"y":1}'], ['{"x":{"y":1}}']),
    ("$.a.size() > 1", ['{"a":[1,2]}'], ['{"a":[1]}', '{"a":7}', "{}"]),
    ('$.a.type() == "array"', ['{"a":[]}'], ['{"a":{}}', "{}"]),
    ("exists($.a)", ['{"a":null}'], ['{"b":1}']),
    ("!exists($.a)", ['{"b":1}'], ['{"a":null}']),
    (
        "exists($.a[*] ? (@.x == 1 && @.y == 2))",
        ['{"a":[{"x":1,"y":2}]}'],
        ['{"a":[{"x":1,"y":1},{"x":2,"y":2}]}'],
    ),
    ("$.a ? (@.k == 1).v > 3", ['{"a":[{"k":1,"v":4}]}'], ['{"a":[{"k":2,"v":4}]}']),
    ("$.x == 1 && $.y == 1", ['{"x":1,"y":1}'], ['{"x":1}', '{"x":1,"y":"1"}']),
    ("$.x == 1 || $.y == 1", ['{"x":1}', '{"x":"?","y":1}'], ['{"x":2}']),
    ("($.x == 1 || $.y == 1) && $.z == 1", ['{"x":1,"z":1}'], ['{"x":1,"y":1}']),
    # What is missing is not 1; what cannot be compared is neither larger nor not.
    ("!($.n > 1)", ['{"n":1}', "{}"], ['{"n":2}', '{"n":"x"}']),
    ("($.n > 1) is unknown", ['{"n":"x"}'], ['{"n":2}', '{"n":0}', "{}"]),
]


async def test_the_language(world: World) -> None:
    passes = "select aetherflow.let_through($1, array[$2::text::jsonpath]) = '1'"
    for text, through, held in LANGUAGE:
        written = await stored_filter(world.database, text)
        assert await stored_filter(world.database, written) == written
        for data in through:
            assert await world.value(passes, data, written), (text, data)
        for data in held:
            assert not await world.value(passes, data, written), (text, data)


async def test_endpoints_have_filters_of_their_own_for_the_same_event(world: World) -> None:
    filters = {
        "/none": None,
        "/small": "$.n < 10",
        "/even": '$.kind == "even"',
        "/small-too": "$.n < 10",
        "/never": '$.kind == "odder"',
    }
    for path, text in filters.items():
        await world.endpoint(path, filter=text, events=["*", "a.*"])
    await world.endpoint("/other", filter="$.n < 10", events=["b"])
    async with world.engine():
        for n in range(20):
            await world.emit(data=f'{{"n":{n},"kind":"{"odd" if n % 2 else "even"}"}}')
        await world.settled()
    got = {path: sorted(it["n"] for it in arrived(world, path)) for path in [*filters, "/other"]}
    assert got == {
        "/none": list(range(20)),
        "/small": list(range(10)),
        "/even": list(range(0, 20, 2)),
        "/small-too": list(range(10)),
        "/never": [],
        "/other": [],
    }


async def test_in_a_pile_each_event_is_judged_for_itself(world: World) -> None:
    await world.endpoint("/third", filter="$.n ? (@ < 900).third == 0 || $.third == 0")
    await world.endpoint("/all", max_in_flight=2)
    await world.value(
        """select count(aetherflow.emit('a.b', format('{"n":%s,"third":%s}', n, n % 3)))
           from generate_series(0, 599) n"""
    )
    async with world.engine():
        await world.settled(60)
    assert sorted(it["n"] for it in arrived(world, "/third")) == list(range(0, 600, 3))
    assert len(arrived(world, "/all")) == 600


LARGE = '{"a":"' + "x" * 1_048_569 + '"}'
MANY = '{"a":[' + "0," * 100_001 + "0]}"


@pytest.mark.parametrize("data", [NESTED, HUGE, LARGE, MANY])
async def test_what_cannot_be_read_is_let_through_and_stops_nothing(
    world: World, data: str
) -> None:
    """Rather one too many than one lost."""
    await world.endpoint("/some", filter="$.amount == 1")
    async with world.engine(emit={"data_max_bytes": 2_000_000}):
        await world.until("select data_max_bytes = 2000000 from aetherflow.control")
        await world.emit(data='{"amount": 2}')
        await world.connection.execute("set max_stack_depth = '6MB'")
        unreadable = await world.emit(data=data)
        await world.emit(data='{"amount": 1}')
        await world.settled()
    ids = [request.headers["webhook-id"] for request in world.receiver.at("/some")]
    assert len(ids) == 2
    assert unreadable in ids


async def test_what_is_just_not_too_large_is_read(world: World) -> None:
    for data in ('{"a":"' + "x" * 1_048_560 + '"}', '{"a":[' + "0," * 99_990 + "0]}"):
        passes = "select aetherflow.let_through($1, array['$.b == 1'::jsonpath])::text"
        assert await world.value(passes, data) == "0"


async def test_a_filter_that_takes_too_long_lets_through(world: World) -> None:
    zeros = "[" + "0," * 99_990 + "0]"
    slow = " || ".join(["$.a[*] == -1"] * 10)
    passes = await world.value(
        "select aetherflow.let_through($1, array_fill($2::text::jsonpath, array[500]))::text",
        f'{{"a":{zeros}}}',
        await stored_filter(world.database, slow),
    )
    looked_at = passes.rstrip("1")
    assert len(passes) == 500
    assert 1 <= len(looked_at) < 500
    assert set(looked_at) == {"0"}


async def test_what_the_readme_shows_is_of_the_language(world: World) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    table = readme.partition("| | example |")[2].partition("\n\n")[0]
    shown = [text for line in table.splitlines() for text in re.findall("`([^`]+)`", line)[-2:]]
    examples = [text for text in shown if re.match(r"\$|exists\(\$|\(\$", text)]
    assert len(examples) == 10
    for text in examples:
        assert await stored_filter(world.database, text.replace("\\|", "|"))


REFUSED = {
    "": "1 to 2,000 characters",
    "$.a == 1 " + "|| $.a == 2 " * 200: "1 to 2,000 characters",
    "amount > 100": "cannot be read: syntax error",
    "$.amount >": "cannot be read: syntax error",
    "@.amount > 1": "cannot be read: @ is not allowed",
    "$.amount": "is no condition: compare a value of the data, as in $.amount > 100",
    "$": "is no condition",
    "true": "is no condition",
    "$.a ? (@ > 1)": "is no condition",
    "strict $.a == 1": "`strict` would call",
    '$.a like_regex "^(a+)+$"': "`like_regex` can take for ever: write == or starts with",
    "$.** == 1": "`**` walks through everything",
    "$.a.**{2 to 3} == 1": "`**` walks through everything",
    "$.a == $.b": "one side of a comparison is a string, a number, true, false or null",
    "1 == 1": "does not belong there",
    "$.a + 1 == 2": "nothing is calculated",
    "$.a == 1 + 1": "nothing is calculated",
    "-$.a == 1": "nothing is calculated",
    "$.a % 2 == 0": "nothing is calculated",
    "$.a[0, 0][0, 0] == 1": "`,` would take values twice",
    "$.a[$.n] == 1": "a place is a number or `last`",
    "$.a[last - 1] == 1": "nothing is calculated",
    "exists($.a[*] ? ($.b[*] == 1))": "a path begins with @ there, not with $",
    '$.at.datetime() < "2026-01-31".datetime()': "there is no .datetime()",
    "$.a.double() > 1": "there is no .double(), only .size() and .type()",
    "exists($.a.keyvalue())": "there is no .keyvalue()",
    "$.a == $limit": "one side of a comparison is",
    "$limit > 1": "there are no variables",
    "$.a starts with $b": "what follows on `starts with` is a string",
    "$.a.size().size() == 1": "nothing follows on .size()",
    "(" * 30 + "$.a == 1" + ") is unknown" * 30: "more than 20 deep",
    " && ".join(["$.a == 1"] * 11): "more than 10 conditions",
    "exists($.a ? (" + " || ".join(["@ == 1"] * 10) + "))": "more than 10 conditions",
    "$.a == 1e100000": "a number that is too long",
    "$.a == 1\x00": "cannot take a value",
    '$.a == "\ud800"': "half of a surrogate pair",
}


async def test_what_is_not_of_the_language_is_refused_and_nothing_saved(world: World) -> None:
    endpoint = await world.endpoint(filter="$.a == 1")
    for text, why in REFUSED.items():
        with pytest.raises(InputRefused, match=r".+") as refused:
            await world.endpoint(filter=text)
        assert why in str(refused.value), text
        with pytest.raises(InputRefused):
            await world.change(endpoint["id"], filter=text, description="new")
    (kept,) = (await list_endpoints(world.database)).rows
    assert (kept["filter"], kept["description"]) == ('($."a" == 1)', "")


class Expressions:
    """Makes up path expressions of all that Postgres knows, and knows which are filters."""

    CONSTANTS = ('"x"', "1", "-2.50", "1e2", "true", "false", "null", '"$.** like_regex , @ + "')
    COMPARED = ("==", "!=", "<>", "<", "<=", ">", ">=")
    KEYS = ("a", '"b c"', '"**"', "like", "strict", "last", '"a\\"b"', "size")
    PLACES = ("0", "7", "last")
    STEPS = (".{key}", ".{key}", ".*", "[*]", "[{place}]", "[0 to {place}]")
    CONDITIONS = (
        "{path} {compared} {constant}",
        "{constant} {compared} {path}",
        '{path} starts with "x"',
        "exists({path})",
        "!exists({path})",
    )
    FOUL_PLACES = ("last - 1", "$.n", "0, 1", "$.size()", "1 + 1")
    FOUL_STEPS = (".**", ".**{1}", ".keyvalue()", ".abs()", ".double()", "[0,1]", "[$.a]")
    FOUL_CONDITIONS = (
        "{path} {compared} {path}",
        '{path} like_regex "a" flag "i"',
        "{path} + 1 {compared} 2",
        "-{path} {compared} 2",
        "{path} {compared} $v",
        "{path} starts with $v",
        '{path}.datetime() {compared} "2026".datetime()',
        "1 {compared} 1",
    )

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self._is_clean = True

    def one(self) -> tuple[str, bool]:
        """Give an expression, and whether it is of the language."""
        self._is_clean = True
        text = self._dice.choice(("", "", "", "lax ")) + self._either("$", 0)
        return text, self._is_clean

    def _choose(self, chance: float, foul: Sequence[str], good: Sequence[str]) -> str:
        is_foul = self._dice.random() < chance
        self._is_clean &= not is_foul
        return self._dice.choice(foul if is_foul else good)

    def _path(self, root: str, depth: int) -> str:
        text = self._choose(0.03, "$", "@") if root == "@" else root
        for _ in range(self._dice.randrange(4)):
            if depth < 2 and self._dice.random() < 0.2:
                text += f" ? ({self._either('@', depth + 1)})"
                continue
            step = self._choose(0.02, self.FOUL_STEPS, self.STEPS)
            place = self._choose(0.05, self.FOUL_PLACES, self.PLACES) if "place" in step else ""
            text += step.replace("{key}", self._dice.choice(self.KEYS)).replace("{place}", place)
        return text + self._dice.choice(("", "", "", ".size()", ".type()"))

    def _condition(self, root: str, depth: int) -> str:
        if self._dice.random() < 0.2:
            wrapped = self._dice.choice(("!({})", "({}) is unknown", "({})"))
            return wrapped.format(self._either(root, depth))
        text = self._choose(0.06, self.FOUL_CONDITIONS, self.CONDITIONS)
        while "{path}" in text:
            text = text.replace("{path}", self._path(root, depth), 1)
        compared, constant = self._dice.choice(self.COMPARED), self._dice.choice(self.CONSTANTS)
        return text.replace("{compared}", compared).replace("{constant}", constant)

    def _either(self, root: str, depth: int) -> str:
        text = self._condition(root, depth)
        for _ in range(self._dice.choice((0, 0, 1, 2))):
            joined = self._dice.choice(("{} && {}", "{} || {}", "({}) && ({})"))
            text = joined.format(text, self._condition(root, depth))
        return text


async def test_of_all_expressions_exactly_those_of_the_language_are_taken(world: World) -> None:
    expressions = Expressions(20261)
    taken = refused = 0
    data = '{"a": [{"b c": 1, "like": "x"}, [1, [2]]], "strict": {"last": null}}'
    for _ in range(2_000):
        text, is_clean = expressions.one()
        try:
            written = await stored_filter(world.database, text)
        except InputRefused as error:
            too_much = ("more than 10 conditions", "parentheses are more", "2,000 characters")
            assert not is_clean or any(it in str(error) for it in too_much), (text, str(error))
            refused += 1
        else:
            assert is_clean, text
            taken += 1
            bits = "select aetherflow.let_through($1, array[$2::text::jsonpath])::text"
            assert await world.value(bits, data, written) in {"0", "1"}
    assert taken > 300
    assert refused > 300


async def test_a_change_holds_for_what_is_emitted_from_then_on(world: World) -> None:
    endpoint = await world.endpoint("/a", filter="$.n == 1")
    async with world.engine():

        async def emit_both() -> list[int]:
            before = len(world.receiver.received)
            for n in (1, 2):
                await world.emit(data=f'{{"n":{n}}}')
            await world.settled()
            return sorted(it["n"] for it in arrived(world, "/a")[before:])

        assert await emit_both() == [1]
        told = await world.change(endpoint["id"], filter="$.n==2")
        assert told["filter"] == '($."n" == 2)'
        assert await emit_both() == [2]
        await world.change(endpoint["id"], description="another", labels=["x"])
        assert await emit_both() == [2]
        assert (await world.change(endpoint["id"], filter=None))["filter"] is None
        assert await emit_both() == [1, 2]


async def test_an_endpoint_with_an_order_has_a_filter_too(world: World) -> None:
    await world.endpoint("/a", filter="$.n > 4", ordering="block")
    async with world.engine():
        for n in range(10):
            await world.emit(data=f'{{"n":{n}}}', ordering_key="k")
        await world.settled()
    assert [it["n"] for it in arrived(world, "/a")] == [5, 6, 7, 8, 9]


async def test_an_event_for_very_many_reaches_those_whose_filter_it_fulfils(world: World) -> None:
    for number in range(40):
        text = (None, "$.n == 1", "$.n == 2")[number % 3]
        await world.endpoint(f"/{number}", filter=text)
    async with world.engine(fanout={"endpoints_max": 7, "poll_idle_seconds": 60}):
        await world.emit(data='{"n":2}')
        await world.settled(10)
        await world.emit(data=HUGE)
        await world.settled(10)
    reached = {number for number in range(40) if {"n": 2} in arrived(world, f"/{number}")}
    assert reached == {number for number in range(40) if number % 3 != 1}
    sent = [request for request in world.receiver.received if b"1e200000" in request.body]
    assert len(sent) == 40


async def test_what_is_told_to_operators_is_filtered_alike(world: World) -> None:
    gone, other = [await world.endpoint(f"/{name}", "410") for name in ("gone", "other")]
    await world.endpoint(
        "/told",
        events=["aetherflow.endpoint.disabled"],
        filter=f'$.endpoint.id == "{gone["id"]}" || $.endpoint_id == "{gone["id"]}"',
    )
    async with world.engine():
        await world.emit()
        await world.settled()
    assert len(arrived(world, "/told")) == 1
    assert gone["id"] in str(arrived(world, "/told"))
    assert other["id"] not in str(arrived(world, "/told"))


async def test_a_replay_sends_only_what_would_have_been_sent(world: World) -> None:
    for n in range(30):
        await world.emit(data=f'{{"n":{n}}}')
    await world.emit(data=HUGE)
    async with world.engine():
        await world.settled()
        new = await world.endpoint("/new", filter="$.n >= 25")
        asked = NewReplay(endpoint_id=new["id"])
        assert (await count_replay(world.database, asked))["deliveries"] == 6
        replay = await start_replay(world.database, asked)
        await world.until("select state = 'done' from aetherflow.replays")
        await world.settled()
    assert (await show_replay(world.database, replay["id"]))["made"] == 6
    numbers = [it["n"] for it in arrived(world, "/new") if "n" in it]
    assert sorted(numbers) == [25, 26, 27, 28, 29]
    assert len(arrived(world, "/new")) == 6


async def test_what_has_failed_is_sent_again_whatever_the_filter_is_by_now(world: World) -> None:
    endpoint = await world.endpoint("/a", "500,200", filter="$.n == 1", retry_schedule_seconds=[])
    async with world.engine():
        await world.emit(data='{"n":1}')
        await world.until("select exists (select from aetherflow.dead)")
        await world.change(endpoint["id"], filter="$.n == 2")
        asked = NewReplay(endpoint_id=endpoint["id"], only_failed=True)
        assert (await count_replay(world.database, asked))["deliveries"] == 1
        await start_replay(world.database, asked)
        await world.receiver.wait_for(2, "/a")
        await world.settled()


async def test_without_a_filter_no_data_is_looked_at(world: World) -> None:
    """Where there is one, it is read once for all, whoever else wants the event."""
    calls = "select coalesce(sum(calls), 0) from pg_stat_user_functions where funcname = $1"
    for path in ("/a", "/b"):
        await world.endpoint(path, events=["a.b", "c"])
    for path in ("/c", "/d"):
        await world.endpoint(path, events=["c"], filter="$.n == 1")
    await world.connection.execute("alter system set track_functions = 'all'")
    await world.value("select pg_reload_conf()")
    async with world.engine():
        for _ in range(5):
            await world.emit()
        await world.settled()
    assert len(arrived(world, "/a")) == 5
    assert await world.value(calls, "let_through") == 0
    async with world.engine():
        await world.emit("c", '{"n":1}')
        await world.settled()
    await world.until(f"select ({calls}) = 1", "let_through")  # told when a connection ends
    await world.connection.execute("alter system reset track_functions")
    await world.value("select pg_reload_conf()")
    assert len(arrived(world, "/c")) == len(arrived(world, "/d")) == 1


async def test_labels_find_endpoints(world: World) -> None:
    one = await world.endpoint(labels=["eu", "team:a", "eu"], tenant="x")
    two = await world.endpoint(labels=["eu"])
    await world.endpoint()
    assert (one["labels"], two["labels"]) == (["eu", "team:a"], ["eu"])

    async def found(**by: Any) -> list[str]:
        return [it["id"] for it in (await list_endpoints(world.database, **by)).rows]

    assert await found(labels=["eu"]) == [one["id"], two["id"]]
    assert await found(labels=["team:a", "eu"]) == [one["id"]]
    assert await found(labels=["eu"], tenant="") == [two["id"]]
    assert await found(labels=["e"]) == []
    assert len(await found()) == 3
    assert (await world.change(two["id"], labels=["us"]))["labels"] == ["us"]
    assert (await world.change(two["id"], description="x"))["labels"] == ["us"]
    assert (await world.change(two["id"], labels=[]))["labels"] == []
    with pytest.raises(NotFound):
        await show_endpoint(world.database, "ep_none")


async def test_metadata_is_given_back_as_it_was_meant_and_never_sent(world: World) -> None:
    metadata = {"zone": "eu", "a": 18446744073709551615, "rate": 1.5, "ü \n": '"\\', "e": 1e300}
    endpoint = await world.endpoint("/a", metadata=metadata, labels=["secret-label"])
    assert list(endpoint["metadata"].items()) == list(metadata.items())
    assert await world.value("select metadata->>'zone' from aetherflow.endpoints") == "eu"
    async with world.engine():
        await world.emit()
        (request,) = await world.receiver.wait_for(1, "/a")
        await world.settled()
    assert "zone" not in f"{request.headers}{request.body!r}"
    assert "secret-label" not in f"{request.headers}{request.body!r}"
    after = await world.change(endpoint["id"], description="x")
    assert after["metadata"] == metadata
    assert (await world.change(endpoint["id"], metadata={}))["metadata"] == {}


NO_NOTES: list[tuple[dict[str, Any], str]] = [
    ({"labels": ["a b"]}, "'a b' is no label"),
    ({"labels": ["x" * 65]}, "is no label"),
    ({"labels": [""]}, "is no label"),
    ({"labels": [f"l{n}" for n in range(21)]}, "at most 20 labels"),
    ({"metadata": {"a": None}}, "holds strings and numbers"),
    ({"metadata": {"a": True}}, "holds strings and numbers"),
    ({"metadata": {"a": {}}}, "holds strings and numbers"),
    ({"metadata": {"a": float("nan")}}, "holds strings and numbers"),
    ({"metadata": {"a": 2**64}}, "64 bits"),
    ({"metadata": {"": 1}}, "is no key of metadata"),
    ({"metadata": {"k" * 129: 1}}, "is no key of metadata"),
    ({"metadata": {"a": "é" * 2048}}, "and at most 4,096"),
    ({"metadata": {"a": "\ud800"}}, "half of a surrogate pair"),
    ({"metadata": ["a"]}, "metadata is an object"),
]


async def test_notes_that_are_none_are_refused(world: World) -> None:
    endpoint = await world.endpoint()
    for notes, why in NO_NOTES:
        with pytest.raises(InputRefused, match=why):
            await world.endpoint(**notes)
        with pytest.raises(InputRefused, match=why):
            await world.change(endpoint["id"], **notes)
