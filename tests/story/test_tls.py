"""TLS: whom we believe to be who they say, and nobody else."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from aetherflow_hooks.errors import InputRefused, NotFound
from aetherflow_hooks.manage.endpoints import (
    NewEndpoint,
    add_endpoint,
    delete_endpoint,
    show_endpoint,
)
from aetherflow_hooks.manage.keys import seal_anew
from aetherflow_hooks.manage.secrets import set_certificate
from aetherflow_hooks.rules.sealing import write_key
from tests.authority import Authority
from tests.conftest import World

KEY = write_key("ours", bytes(32))

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


async def test_who_asks_for_our_certificate_is_shown_the_endpoints(
    world: World, authority: Authority, tmp_path: Path
) -> None:
    clients = Authority(tmp_path, "clients")
    pem = clients.issue("hooks.example").read_text()
    stranger = Authority(tmp_path, "strangers").issue("other.example").read_text()
    async with authority.receiver(clients_of=clients) as secure:
        for path, certificate in {"/ours": pem, "/none": None, "/other": stranger}.items():
            added = await world.endpoint(
                url=secure.url(path), certificate=certificate, retry_schedule_seconds=[]
            )
            if certificate is not None:
                assert added["certificate"].startswith("CN=")
                assert added["certificate_expires_at"]
        with authority.trusted():
            async with world.engine():
                for _ in range(2):
                    await world.emit()
                    await world.settled()
    assert {request.path for request in secure.received} == {"/ours"}
    assert len(secure.received) == 2
    assert len({request.connection for request in secure.received}) == 1
    rows = await world.rows(
        "select a.outcome, e.url from aetherflow.attempts a"
        " join aetherflow.endpoints e on e.id = a.endpoint_id"
    )
    failed = [row["url"] for row in rows if row["outcome"] == "not_reached"]
    assert len(failed) == 4
    assert not [url for url in failed if "/ours" in url]


async def test_a_certificate_is_renewed_and_taken_away(
    world: World, authority: Authority, tmp_path: Path
) -> None:
    keyring = world.settings(secrets={"keys": KEY}).keyring()
    first, second = Authority(tmp_path, "first"), Authority(tmp_path, "second")
    change = partial(set_certificate, world.database, keyring=keyring)
    async with authority.receiver(clients_of=second) as secure:
        added = await world.endpoint(
            url=secure.url(), certificate=first.issue("a").read_text(), retry_schedule_seconds=[]
        )
        with authority.trusted():
            async with world.engine(secrets={"keys": KEY}):
                outcomes = []
                for pem in (None, second.issue("b").read_text(), None):
                    await change(added["id"], pem)
                    await world.emit()
                    await world.settled()
                    latest = "select outcome from aetherflow.attempts order by started_at desc"
                    outcomes.append(await world.value(latest))
    assert outcomes == ["not_reached", "answered", "not_reached"]
    with pytest.raises(NotFound):
        await change("ep_000000000000", None)
    with pytest.raises(InputRefused, match="has expired"):
        await change(added["id"], first.issue("c", days=-1).read_text())


async def test_a_certificates_key_is_stored_sealed_and_goes_with_its_endpoint(
    world: World, tmp_path: Path
) -> None:
    pem = Authority(tmp_path).issue("a").read_text()
    plain = await world.endpoint(url="https://a.example/", certificate=pem)
    settings = world.settings(secrets={"keys": KEY})
    new = NewEndpoint(url="https://b.example/", certificate=pem)
    sealed = await add_endpoint(world.database, new, settings=settings)
    stored = "select pem from aetherflow.certificates where endpoint_id = $1"
    assert (await world.value(stored, plain["id"])) == pem
    assert (await world.value(stored, sealed["id"])).startswith("sealed:1:ours:")
    assert await seal_anew(world.database, settings.keyring()) == (2, [])
    assert (await world.value(stored, plain["id"])).startswith("sealed:1:ours:")
    assert "PRIVATE KEY" not in str(await show_endpoint(world.database, plain["id"]))
    await delete_endpoint(world.database, plain["id"])
    assert await world.value("select count(*) from aetherflow.certificates") == 1
