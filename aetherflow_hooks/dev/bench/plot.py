"""Plot: the legs that have series, as SVG files."""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aetherflow_hooks.dev.bench import BenchFailed
from aetherflow_hooks.dev.bench.figures import Leg

# leg → (what the x axis shows, what the y axis shows, scale of x)
AXES = {
    "latency": ("ms from commit to first byte", "% of events", "log"),
    "backlog": ("deliveries waiting", "deliveries a second", "log"),
    "soak": ("minutes", "", "linear"),
    "faults": ("minutes", "", "linear"),
    "pinned": ("minutes", "deliveries a second", "linear"),
}
FEW_POINTS = 10  # are marked


def check() -> None:
    """Tell whether anything can be drawn.

    Raises:
        BenchFailed: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise BenchFailed("plots need matplotlib: install aetherflow-hooks[bench]")


def draw(legs: Iterable[Leg], folder: Path) -> list[Path]:
    """Draw `bench-<leg>.svg` for every leg that has a plot; give the files."""
    from matplotlib.figure import Figure  # noqa: PLC0415  an extra

    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for leg in legs:
        if leg.name not in AXES or not leg.series:
            continue
        file = folder / f"bench-{leg.name}.svg"
        figure: Any = Figure(figsize=(7, 3.2), layout="constrained")
        _draw(figure, leg)
        # The same figures make the same file.
        figure.savefig(file, metadata={"Date": None, "Creator": None})
        drawn.append(file)
    return drawn


def _draw(figure: Any, leg: Leg) -> None:
    x_label, y_label, x_scale = AXES[leg.name]
    names = list(leg.series)
    if y_label:
        panels = dict.fromkeys(names, figure.subplots())
    else:  # what differs in unit stands one above the other
        column = figure.subplots(len(names), 1, sharex=True, squeeze=False)
        panels = {name: column[place][0] for place, name in enumerate(names)}
    for name, points in leg.series.items():
        axes = panels[name]
        marker = "o" if len(points) <= FEW_POINTS else ""
        axes.plot(*zip(*points, strict=True), marker=marker, label=name)
        axes.set_xscale(x_scale)
        axes.set_ylabel(y_label or name, fontsize="small")
        axes.grid(alpha=0.3)
        if leg.name != "latency":
            axes.set_ylim(bottom=0)
    last = panels[names[-1]]
    last.set_xlabel(x_label)
    if y_label and len(names) > 1:
        last.legend(loc="lower right", frameon=False)
    figure.suptitle(leg.title, fontsize="medium")
