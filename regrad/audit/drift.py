"""How far one distribution is from another: Kolmogorov-Smirnov, the population stability index, many tests at once.

Distributions are counts of images per cell, cells in ascending order of the score, or one cell per predicted class.
The statistics are scipy's: of the libraries that compute a PSI, each brings a framework for the sake of one line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy.special
import scipy.stats

from regrad.runs.scored import Floats, Ints

CELLS = 1000  # of a Grid
PSI_CELLS = 10
FEWEST = 20  # images of a slice that is tested
DRIFTED = 0.01  # the adjusted p-value below which a slice has drifted


class Grid:
    """The baseline's distribution cut into about ``cells`` cells of equally many images.

    Cell j holds the scores in (edge[j-1], edge[j]], so that the distribution functions are exact at the edges.

    Args:
        values: (k,) distinct scores of the baseline, ascending.
        images: (k,) images of each.
        cells: how many, at most.
    """

    def __init__(self, values: Floats, images: Ints, cells: int = CELLS):
        below = np.cumsum(images)
        wanted = np.arange(1, cells) * (below[-1] / cells)
        self.edges: Floats = np.unique(values[np.searchsorted(below, wanted)])

    @property
    def cells(self) -> int:
        """How many there are; ties make them fewer."""
        return self.edges.size + 1

    def place(self, scores: Floats) -> Ints:
        """(n,) the cell of each score."""
        return np.searchsorted(self.edges, scores, side="left")


def ks(counts: Ints, reference: Ints) -> float:
    """D = max_j |F(j) - G(j)| of two distribution functions at the ends of the cells.

    Exact for one cell per distinct value. On a :class:`Grid` it is at most the statistic of the scores themselves, and
    where the reference is that of the grid, without ties, less than it by no more than 1 / cells.

    Args:
        counts, reference: (k,) images per cell, in total more than 0 each.
    """
    difference = np.cumsum(counts) / counts.sum() - np.cumsum(reference) / reference.sum()
    return float(np.abs(difference).max())


def ks_p(statistic: float, images: int, reference: int) -> float:
    """The probability of at least this D from one distribution, by the asymptotic law that scipy's ks_2samp uses."""
    return float(scipy.stats.kstwo.sf(statistic, max(round(images * reference / (images + reference)), 1)))


def psi(counts: Ints, reference: Ints) -> float:
    """sum_j (a_j - e_j) ln(a_j / e_j), the sum of both relative entropies, after adding half an image to each cell.

    Without the halves an empty cell makes it infinite. By chance alone it is (k - 1)(1/n + 1/m) on average.

    Args:
        counts, reference: (k,) images per cell, n and m in total.
    """
    actual, expected = ((images + 0.5) / (images + 0.5).sum() for images in (counts, reference))
    return float((scipy.special.rel_entr(actual, expected) + scipy.special.rel_entr(expected, actual)).sum())


def tenths(counts: Ints, reference: Ints) -> tuple[Ints, Ints]:
    """Both gathered into the ten cells that each hold a tenth of ``reference``: what a PSI is usually taken over."""
    before = np.cumsum(reference) - reference
    place = np.minimum(before * PSI_CELLS // max(int(reference.sum()), 1), PSI_CELLS - 1)
    used = np.unique(place, return_inverse=True)[1]
    return tuple(np.bincount(used, images).astype(np.int64) for images in (counts, reference))  # type: ignore[return-value]


def same_shares_p(counts: Ints, reference: Ints) -> float:
    """The probability of at least this difference in shares from one distribution, by the chi-squared test."""
    pairs = np.stack([counts, reference])[:, (counts + reference) > 0]
    return float(scipy.stats.chi2_contingency(pairs).pvalue) if pairs.shape[1] > 1 else 1.0


def adjusted(ps: Sequence[float | None]) -> list[float | None]:
    """Benjamini and Hochberg's adjusted p-values of those that there are: with them below q, at most the share q of
    what is called a drift is none, on average, however many slices were tested."""
    tested = [p for p in ps if p is not None]
    corrected = iter(scipy.stats.false_discovery_control(np.clip(tested, 0.0, 1.0)).tolist() if tested else ())
    return [None if p is None else next(corrected) for p in ps]


def slice_test(counts: Ints, reference: Ints) -> tuple[float | None, float | None]:
    """D and its p-value; None for both where there are too few images."""
    images, known = int(counts.sum()), int(reference.sum())
    if min(images, known) < FEWEST:
        return None, None
    statistic = ks(counts, reference)
    return statistic, ks_p(statistic, images, known)


def chance_psi(images: int, reference: int, cells: int) -> float:
    """(k - 1)(1/n + 1/m): what the PSI is on average where nothing has changed."""
    return (cells - 1) * (1 / images + 1 / reference) if images and reference else math.nan
