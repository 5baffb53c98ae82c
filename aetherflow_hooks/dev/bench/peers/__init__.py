"""Peers: what else makes the same POSTs, each as its own documentation would have it.

Every module here is a process: it is told its work, prepares, says that it is ready, and begins at
a word, or at once, as `notified` does. `request` is what all of them send, the same as our engine
does.
"""

import importlib.util
from typing import Any

BARE = "bare"
BARE_UVLOOP = "bare-uvloop"
PGQUEUER = "pgqueuer"
PROCRASTINATE = "procrastinate"

NEEDS = {BARE_UVLOOP: "uvloop", PGQUEUER: "pgqueuer", PROCRASTINATE: "procrastinate"}

# The rest would take minutes; how long it takes to begin and to end hardly counts at its rate.
JOBS_MAX = {PROCRASTINATE: 2_000}


def is_installed(name: str) -> bool:
    """Tell whether a contender can run here."""
    package = NEEDS.get(name)
    return package is None or importlib.util.find_spec(package) is not None


def told(name: str, *, jobs: int, concurrency: int) -> dict[str, Any]:
    """Give what a contender's process is told."""
    module = BARE if name == BARE_UVLOOP else name
    return {
        "module": f"peers.{module}",
        "jobs": min(jobs, JOBS_MAX.get(name, jobs)),
        "concurrency": concurrency,
        # A worker of a peer gets what makes it faster.
        "uvloop": name != BARE and is_installed(BARE_UVLOOP),
    }
