"""How unusual a score is beside those of a baseline: p(s) = (1 + #{i : s_i >= s}) / (n + 1), with a guarantee."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from regrad.metrics.arrays import FloatArray


class PValues:
    """Conformal p-values against n baseline scores.

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
