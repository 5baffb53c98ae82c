"""The log of attempts: all that fails, and of what delivers as many lines as are wanted."""

import logging

import pytest

from tests.conftest import World


@pytest.mark.parametrize(("every", "lines"), [(1, 10), (3, 3), (0, 0)])
async def test_of_what_delivers_one_in_so_many_has_a_line(
    world: World, caplog: pytest.LogCaptureFixture, every: int, lines: int
) -> None:
    await world.endpoint("/well")
    await world.endpoint("/dead", "500", retry_schedule_seconds=[])
    with caplog.at_level(logging.INFO):
        async with world.engine(log={"delivered_every": every}):
            for _ in range(10):
                await world.emit()
            await world.settled()
    written = [str(line.msg) for line in caplog.records]
    told = [
        verdict
        for line in written
        for verdict in ("delivered", "dead")
        if f"'verdict': '{verdict}'" in line
    ]
    assert (told.count("delivered"), told.count("dead")) == (lines, 10)
