"""Charts: numbers as shapes for the templates, which write them as SVG.

Nothing here knows colours or fonts: the style sheet does, by the classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

WIDTH, HEIGHT = 720, 180
LEFT, RIGHT, TOP, BOTTOM = 62, 6, 8, 22
LABELS_MAX = 6
STEPS = (1, 2, 5, 10)  # that an axis goes up by, times a power of ten


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle; a point of the chart where `text` is what is known of it."""

    kind: str
    x: float
    y: float
    width: float
    height: float
    text: str = ""


@dataclass(frozen=True, slots=True)
class Label:
    """A word at an axis."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """What is drawn, and `told`: what somebody should hear who does not see it."""

    told: str
    boxes: list[Box]
    lines: list[tuple[str, str]]  # a kind and a path
    rows: list[Label]  # at the left, each with a line across
    columns: list[Label]  # below
    points: list[Box]  # over all, to be pointed at
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT


def attempts_chart(points: Sequence[dict[str, Any]], form: str) -> Chart:
    """Draw attempts by minute or hour: what was delivered, and on top of it what failed.

    `form` writes the time of a point, as strftime has it.
    """
    top = ceiling(max((point["attempts"] for point in points), default=0))
    wide = _step(points)
    boxes = []
    for place, point in enumerate(points):
        base = 0
        for kind, count in (
            ("delivered", point["delivered"]),
            ("failed", point["attempts"] - point["delivered"]),
        ):
            if count:
                x = LEFT + (place + 0.1) * wide
                high = _y(base, top) - _y(base + count, top)
                boxes.append(Box(kind, x, _y(base + count, top), 0.8 * wide, high))
            base += count
    attempts = sum(point["attempts"] for point in points)
    failed = attempts - sum(point["delivered"] for point in points)
    texts = [
        f"{_time(point, form)}: {point['delivered']:,} delivered, "
        f"{point['attempts'] - point['delivered']:,} failed"
        for point in points
    ]
    told = f"{attempts:,} attempts, of which {failed:,} failed"
    return _chart(told, points, form, top, "{:,.0f}", boxes=boxes, texts=texts)


def latency_chart(points: Sequence[dict[str, Any]], form: str) -> Chart:
    """Draw how long attempts took: the middle one, and that of 95 and of 99 in a hundred."""
    kinds = ("p50_ms", "p95_ms", "p99_ms")
    known = [point[kind] for point in points for kind in kinds if point[kind] is not None]
    top = ceiling(max(known, default=0))
    lines = [(kind, path) for kind in kinds if (path := _path(points, kind, top))]
    texts = [
        f"{_time(point, form)}: "
        + (
            ", ".join(f"{kind[:3]} {point[kind]:,.0f} ms" for kind in kinds)
            if point["p50_ms"] is not None
            else "no answer"
        )
        for point in points
    ]
    highest = max((point["p95_ms"] or 0 for point in points), default=0)
    told = f"response times; 95 of 100 within {highest:,.0f} ms at worst" if known else "no answers"
    return _chart(told, points, form, top, "{:,g} ms", lines=lines, texts=texts)


def ceiling(value: float) -> float:
    """Give the number that an axis ends at: 1, 2 or 5 times a power of ten.

    >>> [ceiling(it) for it in (0, 1, 3, 42, 501)]
    [1, 1, 5, 50, 1000]
    """
    if value <= 1:
        return 1
    power: int = 10 ** math.floor(math.log10(value))
    return next(step * power for step in STEPS if step * power >= value)


def _chart(
    told: str,
    points: Sequence[dict[str, Any]],
    form: str,
    top: float,
    row_form: str,
    *,
    texts: Sequence[str],
    boxes: Sequence[Box] = (),
    lines: Sequence[tuple[str, str]] = (),
) -> Chart:
    wide = _step(points)
    every = math.ceil(len(points) / LABELS_MAX) or 1
    return Chart(
        told=told,
        boxes=list(boxes),
        lines=list(lines),
        rows=[Label(LEFT - 6, _y(it, top), row_form.format(it)) for it in (0, top / 2, top)],
        columns=[
            Label(LEFT + (place + 0.5) * wide, HEIGHT - 6, _time(points[place], form))
            for place in range(every // 2, len(points), every)
        ],
        points=[
            Box("point", LEFT + place * wide, TOP, wide, HEIGHT - TOP - BOTTOM, text)
            for place, text in enumerate(texts)
        ],
    )


def _path(points: Sequence[dict[str, Any]], kind: str, top: float) -> str:
    """Write a line through what is known, broken where nothing is."""
    wide = _step(points)
    path = []
    for is_known, run in groupby(enumerate(points), key=lambda it: it[1][kind] is not None):
        if not is_known:
            continue
        places = [(LEFT + (at + 0.5) * wide, _y(point[kind], top)) for at, point in run]
        path.append("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places))
        if len(places) == 1:
            path.append("h0.1")  # a dot
    return "".join(path)


def _step(points: Sequence[object]) -> float:
    return (WIDTH - LEFT - RIGHT) / max(1, len(points))


def _y(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM)


def _time(point: dict[str, Any], form: str) -> str:
    starts_at: datetime = point["starts_at"]
    return starts_at.strftime(form)
