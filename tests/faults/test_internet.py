"""Egress, seen from the wire: what of the table of bad input makes the kernel send anything."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aetherflow_hooks.dev.embedded import EmbeddedPostgres
from aetherflow_hooks.http.names import ADDRESSES_MAX
from aetherflow_hooks.rules.addresses import CLOSED_REASON
from tests.conftest import database_of
from tests.faults.internet import DEAD_PORT, DNS, DNS_PORT, HERE, HERE6

BLOCKED = f"blocked: {CLOSED_REASON}"
REQUIRED = {  # of two events, one after the other
    "q01": ["answered"] * 2,
    "q02": ["answered"] * 2,
    "q03": [BLOCKED] * 2,
    "q04": [BLOCKED] * 2,
    "q05": [BLOCKED] * 2,
    "q06": [BLOCKED] * 2,
    "q07": ["answered"] * 2,
    "q08": ["answered"] * 2,
    "q09": ["answered", BLOCKED],
    "q10": ["answered", BLOCKED],
    "q11": [BLOCKED] * 2,
    "q12": ["not_reached: no connection"] * 2,
    "q15-nxdomain": ["not_reached: its name cannot be resolved"] * 2,
    "q15-servfail": ["not_reached: its name cannot be resolved"] * 2,
    "q15-silent": ["not_reached: its name cannot be resolved"] * 2,
    "q15-empty": ["not_reached: its name cannot be resolved"] * 2,
    "q15-64kb": [BLOCKED] * 2,
    "q17": [BLOCKED] * 2,
    "q18": ["answered"] * 2,
    "q22": [BLOCKED] * 2,
}


@pytest.fixture(scope="module")
def told(server: EmbeddedPostgres) -> dict[str, Any]:
    """What became of the table in an internet of our own."""
    # Who is not root becomes it in there, for which root is not to change its user.
    own = ["unshare", "-nm"] if os.geteuid() == 0 else ["unshare", "-rnm"]
    try:
        subprocess.run([*own, "ip", "link"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no network namespace can be made here")

    async def run() -> str:
        async with database_of(server, "template_hooks") as dsn:
            process = await asyncio.create_subprocess_exec(
                *(*own, sys.executable, "-m", "tests.faults.internet", dsn),
                cwd=Path(__file__).parents[2],
                stdout=subprocess.PIPE,
            )
            async with asyncio.timeout(60):
                return (await process.communicate())[0].decode()

    told: dict[str, Any] = json.loads(asyncio.run(run()))
    return told


def test_no_bad_url_makes_a_packet_whoever_wrote_it_into_the_table(told: dict[str, Any]) -> None:
    assert len(told["urls"]) == told["stored"] > 140
    for url, outcomes in told["urls"].items():
        (outcome,) = outcomes
        assert outcome.startswith("blocked: "), url
    assert told["urls_asked_for"] == []  # not even a name was looked up


@pytest.mark.parametrize(("row", "required"), REQUIRED.items())
def test_what_a_name_leads_to_decides(told: dict[str, Any], row: str, required: list[str]) -> None:
    outcomes = told["names"][row]
    assert [it[: len(want)] for it, want in zip(outcomes, required, strict=True)] == required


def test_nothing_closed_is_ever_connected_to(told: dict[str, Any]) -> None:
    asked_for = {tuple(it) for it in told["names_asked_for"]}
    dead = {it for it in asked_for if it[1] == DEAD_PORT}
    assert asked_for - dead == {(DNS, DNS_PORT), (HERE, 80), (HERE6, 80)}
    assert len(dead) == ADDRESSES_MAX  # of 500


def test_q_10_a_name_is_asked_for_once_in_an_attempt(told: dict[str, Any]) -> None:
    assert told["questions"]["q10"] == 2
    assert {
        name: told["requests"].get(f"{name}.table-of-bad-input.com") for name in ("q09", "q10")
    } == {"q09": 1, "q10": 1}


def test_q_14_and_q_18_settings_open_and_close_what_they_name(told: dict[str, Any]) -> None:
    assert told["settings"] == {"q14-9001": ["answered"], "q14-5432": [BLOCKED], "q18": [BLOCKED]}
    assert {tuple(it) for it in told["settings_asked_for"]} == {
        (DNS, DNS_PORT),
        ("127.0.0.1", 9001),
    }
