"""TLS: whom we believe to be who they say, and nobody else."""

from pathlib import Path
from typing import Any

import pytest

from tests.authority import Authority
from tests.conftest import World

pytestmark = pytest.mark.usefixtures("each_way")


async def the_attempt(world: World, url: str) -> dict[str, Any]:
    await world.endpoint(url=url, retry_schedule_seconds=[])
    async with world.engine():
        await world.emit()
        await world.settled()
    (row,) = await world.rows("select * from aetherflow.attempts")
    return dict(row)


async def test_a_certificate_that_is_trusted_is_enough(world: World, authority: Authority) -> None:
    async with authority.receiver() as secure:
        with authority.trusted():
            row = await the_attempt(world, secure.url())
    assert row["status"] == 200
    assert len(secure.received) == 1


@pytest.mark.parametrize(
    ("names", "days", "why"),
    [
        (["localhost", "127.0.0.1"], -1, "expired"),
        (["receiver.example"], 1, "mismatch"),  # of a name, and reached by its address
        (["localhost"], 1, "mismatch"),
    ],
)
async def test_a_certificate_that_is_not_good_is_none(
    world: World, authority: Authority, names: list[str], days: int, why: str
) -> None:
    async with authority.receiver(*names, days=days) as secure:
        with authority.trusted():
            row = await the_attempt(world, f"https://127.0.0.1:{secure.port}/")
    assert (row["outcome"], row["status"]) == ("not_reached", None)
    assert row["error"].startswith("its certificate is not trusted")
    assert why in row["error"]
    assert secure.received == []


async def test_an_authority_that_nobody_knows_is_none(
    world: World, authority: Authority, tmp_path: Path
) -> None:
    async with Authority(tmp_path, "stranger").receiver() as secure:
        with authority.trusted():
            row = await the_attempt(world, secure.url())
    assert row["error"].startswith("its certificate is not trusted")
    assert secure.received == []
