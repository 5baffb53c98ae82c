"""One run: producers, engines, receivers and faults for seconds, then peace, then the books."""

import asyncio
import hashlib
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg

from aetherflow_hooks.dev.receiver import Receiver
from tests.chaos.cluster import Cluster
from tests.chaos.engines import (
    FAKETIME,
    LEASE_SECONDS,
    SHARD_SECONDS,
    TIMEOUT_SECONDS,
    EngineProcess,
)
from tests.chaos.ledger import Emitted, Fault, Findings, Ledger
from tests.chaos.stage import Stage

ENGINES = 2
PRODUCERS = 3
EVENTS_PER_SECOND = 100
PEACE_SECONDS_MAX = 240.0  # an endpoint that is bad time and again is left alone for up to a minute
BAD_STEPS_PER_SECOND = 10  # of a run, that a receiver is bad at half of; then it is good
HARMLESS = ("lock_a_table", "hold_a_snapshot", "put_in_poison", "jump_clock")  # to results
LOST = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)

# What a receiver does at a request, each as often as the next; most of the time it is good.
GOOD = ["200", "200;wait=0.02", "200;size=3000"]
BAD = [
    "500", "503;retry-after=1", "429;retry-after=0", "302;location=http://10.1.2.3/", "hang",
    "deaf", "drip;every=0.05", "drip-head;every=0.05", "flood", "bomb", "many-headers;count=2000",
    "endless-103", "close", "reset", "half", "short", "garbage", "twice", "later",
]  # fmt: skip


class Run(Stage):
    """One seed."""

    def __init__(self, seed: int, cluster: Cluster, folder: Path, seconds: float) -> None:
        """Prepare, with whatever the seed decides."""
        super().__init__(f"chaos_{seed}", cluster, folder)
        self.seed = seed
        self.ledger = Ledger()
        self.resumed_seconds: list[float] = []  # from Postgres' return to the next request
        self._seconds = seconds
        self._dice = random.Random(seed)
        self._number = 0
        self.liars = Receiver()  # its lies reach whatever is sent to the same place
        self.has_clocks = bool(FAKETIME) and self._dice.random() < 0.2

    async def play(self) -> Findings:
        """Do all of it; give what was found in the end."""
        async with self.set_up(), self.liars:
            await self._add_endpoints()
            for _ in range(ENGINES):
                self.start_engine()
            others = [asyncio.create_task(self._produce(n)) for n in range(PRODUCERS)]
            others.append(asyncio.create_task(self.supervise()))
            try:
                await self._torment()
            finally:
                self.stopping.set()
                await asyncio.gather(*others)
            await self._make_peace()
            return await self._look()

    async def _add_endpoints(self) -> None:
        url, lying_url = self.receiver.url, self.liars.url
        added = [
            await self.add(url("/good", "200")),
            await self.add(url("/one", "200;wait=0.002"), max_in_flight=1),
            await self.add(url("/rate", "200"), rate_per_second=200, burst=20),
        ]
        bad = [await self.add(lying_url(f"/bad/{n}", self._script())) for n in range(3)]
        in_order = await self.add(lying_url("/order", self._script()), ordering="skip")
        beyond_reach = [
            await self.add(f"https://127.0.0.1:{self.receiver.port}/tls"),  # which speaks none
            await self.add("http://nowhere.example/"),  # there is no name server here
            await self.add("http://127.0.0.1:9/"),  # nobody listens
        ]
        self.ledger.ordered = in_order["id"]
        self.ledger.liars = {made["id"] for made in (*bad, in_order)}
        self.ledger.unreachable = {made["id"] for made in beyond_reach}
        for made in (*added, *bad, in_order, *beyond_reach):
            self.ledger.endpoints[made["id"]] = made["secret"]

    def _script(self) -> str:
        """Make up a receiver that is bad half of the time, and good in the end."""
        count = int(BAD_STEPS_PER_SECOND * self._seconds)
        steps = [
            self._dice.choice(BAD if self._dice.random() < 0.5 else GOOD) for _ in range(count)
        ]
        return ",".join([*steps, "200"])

    # Producers: each has a connection, and asks anew whether what it did is there.

    async def _produce(self, number: int) -> None:
        dice = random.Random(f"{self.seed}/{number}")
        connection: asyncpg.Connection | None = None
        while not self.stopping.is_set():
            await asyncio.sleep(dice.expovariate(EVENTS_PER_SECOND / PRODUCERS))
            try:
                if connection is None:
                    connection = await asyncpg.connect(self.dsn, timeout=2, command_timeout=2)
                await self._emit_some(connection, number, dice)
            except LOST:
                if connection is not None:
                    connection.terminate()
                    connection = None
        if connection is not None:
            connection.terminate()

    async def _emit_some(
        self, connection: asyncpg.Connection, producer: int, dice: random.Random
    ) -> None:
        """Commit some events, or roll them back."""
        written: list[Emitted] = []
        transaction = connection.transaction()
        await transaction.start()
        try:
            for _ in range(dice.choice([1, 1, 1, 2, 5])):
                self._number += 1
                data = f'{{"n":{self._number}, "x":"{"x" * dice.choice([0, 50, 500, 5000])}"}}'
                event_id = await connection.fetchval(
                    "select aetherflow.emit('a.b', $1, idempotency_key => $2, ordering_key => $3)",
                    data,
                    f"{self.seed}/{self._number}",
                    f"producer {producer}",
                )
                self.ledger.keys[event_id] = f"producer {producer}"
                digest = hashlib.sha256(data.encode()).hexdigest()
                written.append(Emitted(event_id, digest, "rolled back"))
                self.ledger.emitted[event_id] = written[-1]
            if dice.random() < 0.1:
                await transaction.rollback()
                return
            for emitted in written:
                emitted.outcome = "unknown"  # until the commit's answer is there
            await transaction.commit()
            for emitted in written:
                emitted.outcome = "committed"
        except LOST:
            raise
        except BaseException:
            connection.terminate()
            raise

    # Faults

    async def _torment(self) -> None:
        faults: list[Callable[[], Awaitable[str]]] = [
            *[self.kill_engine] * 3, *[self.freeze_engine] * 2, self.stop_engine, self.add_engine,
            self.starve_engine_of_files, *[self.crash_postgres] * 2, self.freeze_postgres,
            *[self.cut_connections] * 2, self.lock_a_table, self.hold_a_snapshot,
            self.put_in_poison,
        ]  # fmt: skip
        if self.cluster.disk is not None:
            faults.append(self.fill_the_disk)
        if self.has_clocks:
            faults += [self.jump_clock] * 4
        ends_at = time.monotonic() + self._seconds
        await asyncio.sleep(0.7)  # until the engines are there
        while time.monotonic() < ends_at:
            fault = self._dice.choice(faults)
            note = Fault(fault.__name__, time.time())
            # Both kinds lose results, or the lease of whoever has them.
            note.disrupts = fault.__name__ not in HARMLESS
            note.crashes = fault.__name__ in ("crash_postgres", "fill_the_disk")
            note.ended = note.began + LEASE_SECONDS * 10  # while it goes on
            self.ledger.faults.append(note)
            note.detail = await fault()
            note.ended = time.time() + LEASE_SECONDS
            await asyncio.sleep(self._dice.uniform(0.1, 0.8))

    def _one(self) -> EngineProcess:
        running = self.running()
        return self._dice.choice(running) if running else self.start_engine()

    async def kill_engine(self) -> str:
        """Kill an engine, and start another one."""
        engine = self._one()
        engine.kill()
        self.start_engine()
        return str(engine.pid)

    async def stop_engine(self) -> str:
        """Let an engine drain, and start another one meanwhile."""
        engine = self._one()
        engine.ask_to_stop()
        self.start_engine()
        return str(engine.pid)

    async def add_engine(self) -> str:
        """Let one more engine join."""
        return str(self.start_engine().pid)

    async def freeze_engine(self) -> str:
        """Let an engine stand still for longer than its leases last, then go on."""
        engine = self._one()
        async with self.cluster.admin(self._name) as admin:
            asked_at = await admin.fetchval("select now()")
            engine.freeze()
            try:
                await asyncio.sleep(SHARD_SECONDS + self._dice.uniform(0.1, 0.5))
                # Time moves on by data: what it took before has ended.
                await _end_leases(admin, asked_at)
                await asyncio.sleep(self._dice.uniform(0.0, 0.5))
            finally:
                engine.thaw()
        return str(engine.pid)

    async def starve_engine_of_files(self) -> str:
        """Let an engine open no more files for a while."""
        engine = self._one()
        with suppress(OSError):
            before = engine.limit_files(engine.open_files() - self._dice.randrange(4))
            await asyncio.sleep(self._dice.uniform(0.2, 1.0))
            engine.limit_files(before)
        return str(engine.pid)

    async def crash_postgres(self) -> str:
        """Kill all of Postgres, and start it again after a while."""
        self.cluster.crash()
        await asyncio.sleep(self._dice.uniform(0.0, 1.0))
        await self._revive()
        return f"resumed after {self.resumed_seconds[-1]:.2f} s"

    async def freeze_postgres(self) -> str:
        """Let Postgres stand still for longer than a statement may take."""
        seconds = self._dice.uniform(0.3, 2.0)
        await self.cluster.freeze(seconds)
        return f"{seconds:.1f} s"

    async def cut_connections(self) -> str:
        """End all connections of the engines."""
        async with self.cluster.admin(self._name) as admin:
            cut = await admin.fetchval(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )
        return f"{cut} of them"

    async def lock_a_table(self) -> str:
        """Keep everybody from a table for a while, as a careless migration does."""
        table = self._dice.choice(["outbox", "deliveries", "events", "endpoints", "attempts"])
        async with self.cluster.admin(self._name) as admin:
            with suppress(asyncpg.PostgresError):
                await admin.execute(
                    f"begin; set lock_timeout = '2s'; lock table aetherflow.{table}"
                )
                await asyncio.sleep(self._dice.uniform(0.2, 1.5))
        return table

    async def hold_a_snapshot(self) -> str:
        """Begin a transaction that is idle until the server's next fault."""
        admin = await asyncpg.connect(self.dsn, timeout=2)
        await admin.execute("begin isolation level repeatable read; select 1 from pg_class limit 1")
        asyncio.get_running_loop().call_later(self._seconds, admin.terminate)
        return "idle in transaction"

    async def jump_clock(self) -> str:
        """Let the wall clock of an engine jump, there and back; where libfaketime is installed."""
        engine = self._one()
        offset = self._dice.choice(["+1h", "-1h", "+3650d"])
        engine.set_clock(offset)
        self.ledger.clocks_jumped = True
        await asyncio.sleep(self._dice.uniform(0.2, 1.0))
        engine.set_clock("+0")
        return f"{engine.pid} {offset}"

    async def put_in_poison(self) -> str:
        """Commit an event that nobody may put in, larger than any that is sent."""
        async with self.cluster.admin(self._name) as admin, admin.transaction():
            event_id = await admin.fetchval("select aetherflow.emit('a.b', '{}')")
            await admin.execute(
                "update aetherflow.events set data = data || repeat(' ', 17000000) where id = $1",
                event_id,
            )
        self.ledger.emitted[event_id] = Emitted(event_id, "", "committed")
        return str(event_id)

    async def fill_the_disk(self) -> str:
        """Leave Postgres no room to write."""
        await self.cluster.fill_disk(self._dice.uniform(0.2, 1.0))
        await self._revive()
        return f"resumed after {self.resumed_seconds[-1]:.2f} s"

    async def _revive(self) -> None:
        """See to it that Postgres runs, and that engines send again soon after."""
        await self.cluster.revive()
        back_at = time.monotonic()
        before = len(self.receiver.received)
        with suppress(TimeoutError):
            async with asyncio.timeout(10):
                while len(self.receiver.received) == before:
                    await asyncio.sleep(0.01)
        self.resumed_seconds.append(time.monotonic() - back_at)

    # The end

    async def _make_peace(self) -> None:
        """End all faults; let the engines drain, and another one do what is left."""
        await self.cluster.revive()
        for engine in self.engines:
            engine.thaw()
            with suppress(OSError):
                engine.limit_files(1024)
        await self.ended(self.engines)
        async with self.cluster.admin(self._name) as admin:
            await admin.execute("update aetherflow.engines set seen_at = '-infinity'")
            await admin.execute("update aetherflow.shards set leased_until = '-infinity'")
            await _end_leases(admin, await admin.fetchval("select now()"))
            self.start_engine()
            gives_up_at = time.monotonic() + PEACE_SECONDS_MAX
            while time.monotonic() < gives_up_at and await self._pending(admin):
                await asyncio.sleep(0.05)
        await self.ended(self.engines[-1:])

    async def _pending(self, admin: asyncpg.Connection) -> int:
        pending: int = await admin.fetchval(
            "select (select count(*) from aetherflow.outbox)"
            " + (select count(*) from aetherflow.deliveries where endpoint_id <> all($1))",
            list(self.ledger.unreachable),
        )
        return pending

    async def _look(self) -> Findings:
        async with self.cluster.admin(self._name) as admin:
            findings = self.ledger.problems(
                [*self.receiver.received, *self.liars.received],
                await admin.fetch("select * from aetherflow.attempts order by started_at"),
                await admin.fetch("select * from aetherflow.dead"),
                await admin.fetch("select event_id, endpoint_id from aetherflow.deliveries"),
            )
            outbox = await admin.fetchval("select count(*) from aetherflow.outbox")
            findings.must(outbox == 0, f"{outbox} events still wait")
        for engine in self.engines:
            # Postgres was away, or files; or it was asked to stop before it knew how to.
            could_not_start = engine.exit_code in (1, -6, -15) and not engine.has_started()
            findings.must(
                engine.exit_code in (0, -9) or could_not_start,
                f"an engine ended with {engine.exit_code}: see {engine.log}",
            )
        for log in self.logs():
            findings.must("stage.failed" not in log.read_text(), f"a defect is told of in {log}")
        return findings


async def _end_leases(admin: asyncpg.Connection, taken_before: Any) -> None:
    """Move time on to where the leases have ended that were taken before a moment."""
    await admin.execute(
        "update aetherflow.deliveries d set leased_until = now() - interval '1 second'"
        " from (select ctid from aetherflow.deliveries where lease_token <> 0"
        " and leased_until <= $1::timestamptz + make_interval(secs => $2)"
        " for update skip locked) leased where d.ctid = leased.ctid",
        taken_before,
        LEASE_SECONDS,
    )


assert TIMEOUT_SECONDS < SHARD_SECONDS  # what was begun before a freeze has ended when it is told
