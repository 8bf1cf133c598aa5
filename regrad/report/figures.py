"""Figures as coordinates: the page's template draws them as SVG, so no text passes through here unescaped."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 300, 150
LEFT, RIGHT, TOP, BOTTOM = 8, 8, 8, 22


@dataclass(frozen=True)
class Tick:
    """A mark on the horizontal axis."""

    x: float
    label: str


@dataclass(frozen=True)
class Histogram:
    """Two histograms over the same bins: SVG paths of their filled outlines, and ticks."""

    known: str
    unknown: str
    ticks: list[Tick]
    log: bool
    width: int = WIDTH
    height: int = HEIGHT
    base: int = HEIGHT - BOTTOM
    left: int = LEFT
    right: int = WIDTH - RIGHT


def histogram(edges: Sequence[float], known: Sequence[float], unknown: Sequence[float], log: bool) -> Histogram:
    """The steps of ``known`` and ``unknown`` over the bins between ``edges``, on one vertical scale.

    Args:
        edges: (bins + 1,) increasing; positive when ``log``.
        known, unknown: (bins,) shares of each set.
        log: whether the horizontal axis is logarithmic.
    """
    peak = max([*known, *unknown]) or 1.0
    place = _axis(edges[0], edges[-1], log)
    xs = [place(edge) for edge in edges]
    ticks = [Tick(place(value), format_number(value)) for value in tick_values(edges[0], edges[-1], log)]
    return Histogram(_steps(xs, known, peak), _steps(xs, unknown, peak), ticks, log)


def tick_values(low: float, high: float, log: bool) -> list[float]:
    """Three to six round numbers from ``low`` to ``high``: powers of ten when ``log`` and there are enough of them.

    >>> tick_values(0.0, 1.0, log=False)
    [0.0, 0.25, 0.5, 0.75, 1.0]
    >>> tick_values(0.002, 300.0, log=True)
    [0.01, 0.1, 1.0, 10.0, 100.0]
    """
    if log:
        first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
        step = max(1, math.ceil((last - first + 1) / 5))
        return [10.0**power for power in range(first, last + 1, step)]
    raw = (high - low) / 4
    scale = 10.0 ** math.floor(math.log10(raw))
    width = scale * max(factor for factor in (1.0, 2.0, 2.5, 5.0) if factor * scale <= raw * (1 + 1e-9))
    begin, end = math.ceil(low / width - 1e-9), math.floor(high / width + 1e-9)
    stride = max(1, math.ceil((end - begin + 1) / 6))
    return [round(index * width, 12) for index in range(begin, end + 1, stride)]


def format_number(value: float) -> str:
    """``value`` with four significant digits, without a tail of zeros.

    >>> format_number(0.00012344), format_number(1500.0), format_number(2.0)
    ('0.0001234', '1500', '2')
    """
    return f"{value:.4g}"


def _axis(low: float, high: float, log: bool) -> Callable[[float], float]:
    """The map from values to horizontal positions."""

    def scale(value: float) -> float:
        return math.log10(value) if log else value

    start, span = scale(low), scale(high) - scale(low)
    return lambda value: round(LEFT + (WIDTH - LEFT - RIGHT) * (scale(value) - start) / span, 2)


def _steps(xs: Sequence[float], shares: Sequence[float], peak: float) -> str:
    base = HEIGHT - BOTTOM
    ys = [round(base - (base - TOP) * share / peak, 2) for share in shares]
    steps = "".join(f"V{y}H{right}" for y, right in zip(ys, xs[1:], strict=True))
    return f"M{xs[0]} {base}{steps}V{base}Z"
