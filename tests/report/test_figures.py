"""Coordinates stay inside the frame, and what is drawn is what was counted."""

from __future__ import annotations

import re

import numpy as np
import pytest

from regrad.report import figures


def heights(path: str) -> list[float]:
    """The height of each bar above the base line, read back from the path."""
    base = figures.HEIGHT - figures.BOTTOM
    return [base - float(y) for y in re.findall(r"V([\d.]+)H", path)]


@pytest.mark.parametrize("log", [False, True])
def test_bars_are_proportional_to_shares_on_one_scale(log: bool) -> None:
    edges = np.geomspace(0.01, 100, 5) if log else np.linspace(-1, 1, 5)
    made = figures.histogram(edges.tolist(), [0.1, 0.2, 0.4, 0.3], [0.0, 0.0, 0.2, 0.8], log)
    room = figures.HEIGHT - figures.BOTTOM - figures.TOP
    assert heights(made.known) == pytest.approx([room * share / 0.8 for share in (0.1, 0.2, 0.4, 0.3)], abs=0.01)
    assert heights(made.unknown) == pytest.approx([room * share / 0.8 for share in (0, 0, 0.2, 0.8)], abs=0.01)
    xs = [float(x) for x in re.findall(r"H([\d.]+)", made.known)]
    quarter = (figures.WIDTH - figures.LEFT - figures.RIGHT) / 4
    assert xs == pytest.approx([figures.LEFT + quarter * step for step in (1, 2, 3, 4)], abs=0.01)


def test_empty_histograms_lie_on_the_base_line() -> None:
    made = figures.histogram([0.0, 1.0, 2.0], [0.0, 0.0], [0.0, 0.0], log=False)
    assert heights(made.known) == [0, 0]


@pytest.mark.parametrize(
    ("low", "high", "log"),
    [
        (0.0, 1.0, False),
        (-0.97, -0.11, False),
        (1234.0, 1234.5, False),
        (-3e-7, 8e-7, False),
        (0.5, 30.0, True),
        (1e-12, 1e9, True),
    ],
)
def test_ticks_are_few_increasing_and_inside(low: float, high: float, log: bool) -> None:
    ticks = figures.tick_values(low, high, log)
    assert 2 <= len(ticks) <= 6
    assert ticks == sorted(set(ticks))
    assert low - 1e-9 * abs(low) <= ticks[0]
    assert ticks[-1] <= high + 1e-9 * abs(high)
