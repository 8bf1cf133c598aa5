"""Confidence intervals of differences between two scorings of the same images: both see the same resamples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse
import scipy.stats

from regrad.metrics.arrays import FloatArray
from regrad.metrics.bootstrap import CELLS, LEVEL, RESAMPLES, Interval

#: As many images are resampled; of more, a sample of this size.
SAMPLE = 100_000
BLOCK = 20  # resamples at once: 16 MB of weights for each sample of images

#: From weights (b, m) of each sample's images, one array a sample, to metrics (b,).
Statistic = Callable[..., Mapping[str, FloatArray]]


def deviations(
    statistic: Statistic,
    sampled: Sequence[int],
    images: Sequence[int],
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> dict[str, Interval | None]:
    """s ([q_{(1-level)/2}, q_{(1+level)/2}] - T), T the metric of the samples, q its quantiles over resamples.

    A resample draws m images, with replacement, from each sample of m on its own; whatever the statistic computes,
    it computes for both scorings from the same images. s = max sqrt(m / n) takes the spread of m images to that of
    the n that they stand for: it is 1 where the sample is all there is, and never too small with several samples.

    Args:
        statistic: the metrics, from one array of weights (b, m) for each sample: how often each image was drawn.
        sampled: m of each sample.
        images: n of each sample.
        resamples: how many.
        level: the confidence, in (0, 1).
        seed: of the random numbers; the same seed gives the same intervals.

    Returns:
        Metric -> (low, high), to be added to the metric of all images; None where the metric is undefined for more
        than half of the resamples.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13; Politis & Romano, Large
    Sample Confidence Regions Based on Subsamples, 1994, for the scaling.
    """
    rng = np.random.default_rng(seed)
    scale = max(math.sqrt(m / n) for m, n in zip(sampled, images, strict=True))
    whole = statistic(*(np.ones((1, m)) for m in sampled))
    drawn: dict[str, list[FloatArray]] = {name: [] for name in whole}
    for begin in range(0, resamples, BLOCK):
        size = min(BLOCK, resamples - begin)
        weights = [np.stack([_draw(m, rng) for _ in range(size)]) for m in sampled]
        for name, values in statistic(*weights).items():
            drawn[name].append(values)
    offsets: dict[str, Interval | None] = {}
    for name, parts in drawn.items():
        values, middle = np.concatenate(parts), float(whole[name][0])
        defined = values[np.isfinite(values)]
        if 2 * defined.size <= resamples or not math.isfinite(middle):
            offsets[name] = None
            continue
        low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
        offsets[name] = (scale * (float(low) - middle), scale * (float(high) - middle))
    return offsets


def median_ranks(images: int, level: float = LEVEL) -> tuple[float, float, float]:
    """The share of images up to the median, and up to the ends of its bootstrap interval.

    The k-th smallest of a resample, k = ceil(n / 2), is at most v with the probability that a binomial of n trials and
    the share F(v) reaches k, so the quantiles over all resamples there are follow from a beta distribution.

    Args:
        images: n.
        level: the confidence, in (0, 1).

    Source: Efron & Tibshirani 1993, section 13.4, with scipy's incomplete beta function.
    """
    k = (images + 1) // 2
    low, high = scipy.stats.beta.ppf([(1 - level) / 2, (1 + level) / 2], k, images - k + 1)
    return k / images, float(low), float(high)


def counter(values: FloatArray, kinds: npt.NDArray[np.int64], cells: int = CELLS) -> scipy.sparse.csr_array:
    """What turns weights of images into weights of cells for :func:`counts`: a matrix (m, 2 cells).

    Cells ascend with ``values``; neighbouring ones are merged to about ``cells`` with equal shares of the images, each
    kind weighing alike.

    Args:
        values: (m,) scores.
        kinds: (m,) 0 or 1, or -1 for an image that is not counted.
        cells: how many.
    """
    rows = np.flatnonzero(kinds >= 0)
    distinct, place = np.unique(values[rows], return_inverse=True)
    if distinct.size > cells:
        mass = np.zeros(distinct.size)
        for kind in (0, 1):
            of_kind = np.bincount(place[kinds[rows] == kind], minlength=distinct.size)
            mass += of_kind / max(of_kind.sum(), 1)
        before = np.cumsum(mass) - mass
        target = np.floor(before / mass.sum() * cells)
        place = np.cumsum(np.r_[0, target[1:] != target[:-1]])[place]
    used = int(place.max(initial=0)) + 1
    columns = kinds[rows] * used + place
    return scipy.sparse.csr_array((np.ones(rows.size), (rows, columns)), shape=(values.size, 2 * used))


def counts(weights: FloatArray, counter: scipy.sparse.csr_array) -> tuple[FloatArray, FloatArray]:
    """(b, cells) weights of the images of kind 0, and of kind 1."""
    cell_weights = np.asarray(weights @ counter)
    half = cell_weights.shape[1] // 2
    return cell_weights[:, :half], cell_weights[:, half:]


def _draw(images: int, rng: np.random.Generator) -> FloatArray:
    return np.bincount(rng.integers(images, size=images), minlength=images).astype(np.float64)
