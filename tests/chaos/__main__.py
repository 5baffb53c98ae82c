"""Play seeds, one after the other, and say what was found; see `tests.chaos`."""

import argparse
import asyncio
import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.chaos.cluster import Cluster
from tests.chaos.run import Run
from tests.chaos.scenes import SCENES, Failed, Scene, soak

DISK_MIB = 400


def own_place() -> list[str] | None:
    """Say how to come to a network and mounts of our own; None: there is no way."""
    own = ["unshare", "-nm"] if os.geteuid() == 0 else ["unshare", "-rnm"]
    try:
        subprocess.run([*own, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return own


def main() -> int:
    """Give 0 if nothing was lost, and nothing doubled without a reason."""
    parser = argparse.ArgumentParser(prog="make chaos")
    parser.add_argument("--seeds", default="1-200", help="as 7, or 1-200")
    parser.add_argument("--seconds", type=float, default=4.0, help="of faults, in each run")
    parser.add_argument(
        "--scene", choices=SCENES, help="one promise at its full size, in place of seeds"
    )
    parser.add_argument("--minutes", type=float, default=30, help="of the soak")
    parser.add_argument("--plots", type=Path, help="a folder to draw the soak in")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    own = None if options.inside else own_place()
    if own is not None:
        return subprocess.run(
            [*own, sys.executable, "-m", "tests.chaos", *sys.argv[1:], "--inside"], check=False
        ).returncode
    first, _, last = options.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    if options.scene:
        scene = SCENES[options.scene]
        if scene is soak:
            scene = functools.partial(soak, minutes=options.minutes, plots=options.plots)
        return asyncio.run(show(options.scene, scene, has_own_place=options.inside))
    return asyncio.run(play(seeds, options.seconds, has_own_place=options.inside))


@asynccontextmanager
async def place(*, is_own: bool, small: bool) -> AsyncIterator[tuple[Cluster, Path]]:
    """Start a server, on a `small` disk of its own where that can be; give a folder for logs."""
    folder = Path(tempfile.mkdtemp(prefix="aetherflow-chaos-"))
    folder.chmod(0o711)
    disk = None
    if is_own:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        disk = folder / "disk" if small else None
    if disk is not None:
        disk.mkdir(mode=0o711)
        options = f"size={DISK_MIB}m,mode=711"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], check=True)
    if not is_own:
        print("no namespaces here: the faults of disks and of name servers are left out")
    base = (disk or folder) / "pg"
    base.mkdir(mode=0o711)
    cluster = Cluster(base, disk)
    await cluster.start()
    try:
        yield cluster, folder
    finally:
        await cluster.stop()
        print(f"logs: {folder}")


async def show(name: str, scene: Scene, *, has_own_place: bool) -> int:
    """Play a scene; give 1 if its promise did not hold, else 0."""
    async with place(is_own=has_own_place, small=False) as (cluster, folder):
        try:
            print(f"{name}: {await scene(cluster, folder)}")
        except Failed as failed:
            print(f"{name}: WRONG: {failed}")
            return 1
    return 0


async def play(seeds: range, seconds: float, *, has_own_place: bool) -> int:
    """Play seeds on one server; give 1 if anything was wrong, else 0."""
    wrong = committed = doubled = 0
    resumed = [0.0]
    async with place(is_own=has_own_place, small=True) as (cluster, folder):
        for seed in seeds:
            began = time.monotonic()
            run = Run(seed, cluster, folder, seconds)
            findings = await run.play()
            wrong += bool(findings.wrong)
            committed += findings.committed
            doubled += findings.doubled
            resumed += run.resumed_seconds
            faults = " ".join(f"{it.name}({it.detail})" for it in run.ledger.faults)
            print(
                f"seed {seed}: {findings.committed} deliveries committed, "
                f"{findings.doubled} doubled, {time.monotonic() - began:.1f} s: "
                f"{'WRONG' if findings.wrong else 'good'}: {faults}",
                flush=True,
            )
            for problem in findings.wrong[:20]:
                print(f"    {problem}", flush=True)
    print(
        f"{len(seeds)} runs, {wrong} wrong; {committed} deliveries of committed events, "
        f"{doubled} requests doubled; after Postgres came back, the next request within "
        f"{max(resumed):.2f} s"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
