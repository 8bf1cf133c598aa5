"""What promises something whatever the network and the data: p-values of scores, and quantiles for prediction sets.

Both compare with n images that are exchangeable with the one in question: had all n + 1 been drawn in another order,
that would have been as likely. The rank of the one among all is then as likely to be any as any other.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from regrad.metrics.arrays import FloatArray


class PValues:
    """p(s) = (1 + #{i : s_i >= s}) / (n + 1): conformal p-values against n baseline scores.

    Where an image and the baseline's are exchangeable (drawn alike, in any order), P(p <= a) <= a for every a: of
    images like the baseline's, at most the share a has a p-value of a or less, whatever the score and the network.
    Nothing is promised of a single image, of images that are unlike each other, nor of what is no longer alike.

    Args:
        values: (k,) ascending scores of the baseline.
        images: (k,) how many images of the baseline have each.
        exact: whether ``values`` are the images' own. Where they are the smallest of cells of neighbouring scores, a
            score counts as no larger than any of its cell: p-values are larger then, and keep the promise.

    Source: Vovk, Gammerman & Shafer, 2005; for outliers Bates et al., Annals of Statistics 2023.

    >>> PValues(np.array([1.0, 2.0, 3.0]), np.array([7, 1, 1]))(np.array([0.0, 2.0, 2.5, 9.0])).tolist()
    [1.0, 0.3, 0.2, 0.1]
    """

    def __init__(self, values: FloatArray, images: npt.NDArray[np.int64], exact: bool = True) -> None:
        self._values, self._exact = values, exact
        self._at_least = np.append(np.cumsum(images[::-1])[::-1], 0)  # of a value and of all larger ones

    def __call__(self, scores: FloatArray) -> FloatArray:
        """(n,) p-values of (n,) scores; NaN of NaN."""
        values = self._values
        place = np.searchsorted(values, scores) if self._exact else np.searchsorted(values, scores, "right") - 1
        p = (1 + self._at_least[place.clip(0)]) / (1 + self._at_least[0])
        return np.where(np.isnan(scores), math.nan, p)


@dataclass(frozen=True)
class Quantiles:
    """q(c) = the k-th smallest of n numbers, k = ceil((n + 1) c), for every coverage c that n numbers allow.

    One more number that is exchangeable with them is at most q(c) with a probability of at least c, since its rank
    among the n + 1 is at most k with the probability k / (n + 1); ties only raise it. (So much is the finite-sample
    correction: the share ceil((n + 1) c) / n of the n, and not c, lies no higher.)

    Attributes:
        images: n.
        ranks: the k that are kept, ascending: those of every tenth of a percent, and n. For any other c it is the next
            one, so that the promise holds.
        values: of these ranks.

    Source: Papadopoulos et al., 2002; Lei et al., Distribution-Free Predictive Inference for Regression, 2018.

    >>> Quantiles.of(np.arange(1.0, 20.0)).at(0.9)  # the 18th of 19
    18.0
    """

    images: int
    ranks: tuple[int, ...]
    values: tuple[float, ...]

    @classmethod
    def of(cls, numbers: FloatArray) -> Quantiles:
        """Of (n,) numbers."""
        images = numbers.size
        wanted = {-((images + 1) * thousandth // -1000) for thousandth in range(1, 1000)}  # rounded up
        ranks = sorted({rank for rank in wanted if rank <= images} | {images})
        return cls(images, tuple(ranks), tuple(np.sort(numbers)[np.array(ranks) - 1].tolist()))

    def at(self, coverage: float) -> float:
        """q(c).

        Raises:
            ValueError: n numbers are too few for it.
        """
        rank = rank_of(self.images, coverage)
        if rank > self.images:
            share = _as_written(coverage)
            raise ValueError(f"needs {math.ceil(share / (1 - share))} images, there are {self.images}")
        return self.values[bisect.bisect_left(self.ranks, rank)]


def rank_of(images: int, coverage: float) -> int:
    """ceil((n + 1) c), of c as the decimal that it is written as.

    >>> rank_of(9, 0.7), rank_of(9, 0.71)  # 10 * 0.7 is a little more than 7 in floating point, or a little less
    (7, 8)
    """
    return math.ceil(_as_written(coverage) * (images + 1))


def _as_written(share: float) -> Fraction:
    return Fraction(repr(float(share)))
