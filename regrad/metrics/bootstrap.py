"""Confidence intervals: what a metric would have been, had other images of the same kinds been drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from regrad.metrics.arrays import FloatArray
from regrad.metrics.counted import Counts

RESAMPLES = 1000
LEVEL = 0.95
SETTINGS = {"level": LEVEL, "resamples": RESAMPLES, "seed": 0}  # as reports tell them
CELLS = 2048
BLOCK = 50  # resamples at once: their arrays stay in the processor's cache

Interval = tuple[float, float]
#: From resampled counts (b, ...), one array a sample, to metrics (b,).
Statistic = Callable[..., Mapping[str, FloatArray]]


def intervals(
    statistic: Statistic, samples: Sequence[Counts], resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> dict[str, Interval | None]:
    """[q_{(1-level)/2}, q_{(1+level)/2}] of each metric over resamples: the percentile bootstrap.

    A resample draws as many images as there are, with replacement, from each sample on its own: multinomial counts.

    Args:
        statistic: the metrics, from one array (b, *shape) for each sample.
        samples: arrays of counts; the images of one array are drawn from together.
        resamples: how many.
        level: the confidence, in (0, 1).
        seed: of the random numbers; the same seed gives the same intervals.

    Returns:
        Metric -> (low, high). Resamples where a metric is undefined (no error drawn, say) are left out of it; None
        where more than half of them are.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    rng = np.random.default_rng(seed)
    blocks: dict[str, list[FloatArray]] = {}
    for begin in range(0, resamples, BLOCK):
        size = min(BLOCK, resamples - begin)
        for name, values in statistic(*(_draw(sample, size, rng) for sample in samples)).items():
            blocks.setdefault(name, []).append(values)
    by_metric: dict[str, Interval | None] = {}
    for name, parts in blocks.items():
        values = np.concatenate(parts)
        defined = values[np.isfinite(values)]
        ends = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2]) if 2 * defined.size > resamples else None
        by_metric[name] = None if ends is None else (float(ends[0]), float(ends[1]))
    return by_metric


def pool(counts: Sequence[Counts], cells: int = CELLS) -> list[npt.NDArray[np.int64]]:
    """Neighbouring cells merged to about ``cells`` with equal shares of the images, each kind weighing alike.

    Time and memory of a bootstrap then do not grow with the images. A metric of the merged cells is off by
    O(1 / cells^2), which intervals of real data are far wider than.

    Args:
        counts: arrays (k,) over the same cells.
        cells: how many are to be left, about; k or fewer stay as they are.

    Returns:
        The arrays, over fewer cells.
    """
    if counts[0].size <= cells:
        return [np.asarray(count, dtype=np.int64) for count in counts]
    mass = sum(count / max(count.sum(), 1) for count in counts)
    before = np.cumsum(mass) - mass
    target = np.floor(before / (before[-1] + mass[-1]) * cells)
    starts = np.flatnonzero(np.r_[True, target[1:] != target[:-1]])
    return [np.add.reduceat(np.asarray(count, dtype=np.int64), starts) for count in counts]


def _draw(sample: Counts, resamples: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    total = int(sample.sum())
    shares = sample.ravel() / max(total, 1)
    filled = np.flatnonzero(shares)  # an empty cell stays empty: no number need be drawn for it
    drawn = np.zeros((resamples, shares.size), dtype=np.int64)
    if filled.size:
        drawn[:, filled] = rng.multinomial(total, shares[filled] / shares[filled].sum(), size=resamples)
    return drawn.reshape(resamples, *sample.shape)
