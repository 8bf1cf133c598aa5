"""Whether two samples of vectors are of one distribution: a domain classifier and a kernel statistic, by permutation.

Both statistics are sums over the images of a sample, of vectors that do not depend on which sample an image is of. So a
permutation is a column of a matrix of zeros and ones, and a hundred of them are one product of matrices: nothing is
fitted again. The p-values are exact at every size: an image of one sample could as well have been of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg
import scipy.spatial.distance
import scipy.stats
import sklearn.covariance
import sklearn.kernel_approximation

from regrad.metrics.arrays import FloatArray

PERMUTATIONS = 999
FOLDS = 5
FREQUENCIES = 512  # of the kernel's random Fourier features
BLOCK = 50  # permutations at once
_CONSTANT = 1e-6  # a deviation of this share of the mean is rounding
_MEDIAN_OF = 1000  # vectors, whose distances make the bandwidth
_ROUNDING = 1e-6  # relative: a permutation that is the samples themselves is as extreme as they are

Singles = npt.NDArray[np.float32]
#: From (n, b) columns of 1 where an image is of the new sample, else 0, to (b,) values.
Labellings = Callable[[Singles], FloatArray]


@dataclass(frozen=True)
class TwoSamples:
    """What tells two samples apart.

    Attributes:
        auroc, auroc_p: of the domain classifier, see :class:`DomainClassifier`, and its p-value.
        mmd, mmd_p: of the kernel statistic, see :class:`KernelStatistic`, and its p-value.
    """

    auroc: float
    auroc_p: float
    mmd: float
    mmd_p: float


@dataclass(frozen=True)
class GroupTest:
    """What tells the two samples of one group apart.

    Attributes:
        mmd: its kernel statistic.
        p: its p-value.
        p_adjusted: for all groups together, by Westfall and Young.
    """

    mmd: float
    p: float
    p_adjusted: float


class Pooled:
    """Two samples as one, each number divided by its deviation over both.

    Args:
        known, new: (n, d) and (m, d) vectors of either sample, with n and m at least 2 * FOLDS.
        seed: of folds, frequencies and permutations.

    Attributes:
        vectors: (n + m, d') float32, those of ``known`` first, around a mean of 0; without numbers that are constant,
            and one of zeros where all are.
        is_new: (n + m,) 0 or 1.
        folds: (n + m,) from 0 on; a fold has as good as the same share of either sample as all.
    """

    def __init__(self, known: npt.ArrayLike, new: npt.ArrayLike, seed: int = 0):
        samples = [np.asarray(vectors, np.float32) for vectors in (known, new)]
        fewest = min(map(len, samples))
        if fewest < 2 * FOLDS:
            raise ValueError(f"a sample has {fewest} vectors; {2 * FOLDS} are needed, two for each fold")
        pooled = np.concatenate(samples)
        mean, deviation = pooled.mean(0, dtype=np.float64), pooled.std(0, dtype=np.float64)
        varied = np.flatnonzero(deviation > _CONSTANT * np.abs(mean))
        kept = varied if varied.size else np.arange(1)
        self.vectors: Singles = pooled[:, kept] - mean[kept].astype(np.float32)
        self.vectors /= np.where(varied.size, deviation[kept], 1).astype(np.float32)
        self.is_new: Singles = np.repeat(np.array([0, 1], np.float32), [len(sample) for sample in samples])
        self.seed = seed
        rng = np.random.default_rng([seed, 0])
        self.folds = np.concatenate([rng.permutation(np.arange(len(sample)) % FOLDS) for sample in samples])


class DomainClassifier:
    """The mean over folds of P(s_new > s_known) + P(s_new = s_known) / 2 for two images of the fold: AUROC.

    s is the linear discriminant of the other folds: s(x) = x . C^-1 (m_new - m_known), with m the means of the other
    folds' images of either sample. C is the covariance of all images, with the shrinkage of Ledoit and Wolf: it knows
    no sample, so one factorisation serves all folds and all permutations. 0.5 is chance, 1 a perfect separation.

    Source: Lopez-Paz & Oquab, Revisiting Classifier Two-Sample Tests, ICLR 2017, with the classifier stated.
    """

    def __init__(self, samples: Pooled):
        covariance = sklearn.covariance.ledoit_wolf(samples.vectors.astype(np.float64), assume_centered=True)[0]
        covariance[np.diag_indices_from(covariance)] += np.finfo(np.float32).eps  # where every number is constant
        root = scipy.linalg.cholesky(covariance, lower=True)
        order = np.argsort(samples.folds, kind="stable")
        whitened = scipy.linalg.solve_triangular(root, samples.vectors[order].T, lower=True).T.astype(np.float32)
        self._order = order
        self._folds = np.split(whitened, np.cumsum(np.bincount(samples.folds))[:-1])

    def __call__(self, labellings: Singles) -> FloatArray:
        """(b,) the statistic of each column of (n, b) ``labellings``."""
        ordered = np.split(labellings[self._order], np.cumsum([len(fold) for fold in self._folds])[:-1])
        sums = np.stack([fold.T @ is_new for fold, is_new in zip(self._folds, ordered, strict=True)])
        totals = np.stack([fold.sum(0, dtype=np.float64) for fold in self._folds])[:, :, None]
        counts = np.stack([is_new.sum(0) for is_new in ordered])[:, None]
        sizes = np.array([len(fold) for fold in self._folds])[:, None, None]
        values = np.zeros(labellings.shape[1])
        for fold, is_new, own, total, count, size in zip(
            self._folds, ordered, sums, totals, counts, sizes, strict=True
        ):
            new, images = counts.sum(0) - count, sizes.sum(0) - size
            of_new = sums.sum(0) - own
            direction = of_new / new - (totals.sum(0) - total - of_new) / (images - new)
            values += _aurocs(fold @ direction.astype(np.float32), is_new)
        return values / len(self._folds)


class KernelStatistic:
    """mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j): the unbiased MMD^2.

    k(x, y) = z(x) . z(y) with z of 2 * FREQUENCIES random Fourier features of exp(-|x - y|^2 / (2 h^2)), h the median
    distance of two images: a kernel of its own that is near that one, so that time and memory are linear in the images.
    Around 0 where both samples are of one distribution, else above.

    Source: Gretton et al., A Kernel Two-Sample Test, JMLR 2012, equation 3; Rahimi & Recht, Random Features for
    Large-Scale Kernel Machines, NIPS 2007.
    """

    def __init__(self, features: Singles):
        self._features = features - features.mean(0, dtype=np.float64).astype(np.float32)  # the statistic stays
        self._squares = np.square(self._features).sum(1, dtype=np.float32)

    def __call__(self, labellings: Singles) -> FloatArray:
        """(b,) the statistic of each column of (n, b) ``labellings``."""
        counts = labellings.sum(0, dtype=np.float64), (1 - labellings).sum(0, dtype=np.float64)
        new = (self._features.T @ labellings).astype(np.float64)
        squares = (self._squares @ labellings).astype(np.float64)
        sums = new, self._features.sum(0, dtype=np.float64)[:, None] - new
        diagonals = squares, self._squares.sum(dtype=np.float64) - squares
        within = [
            (np.square(vector).sum(0) - diagonal) / (count * (count - 1))
            for vector, diagonal, count in zip(sums, diagonals, counts, strict=True)
        ]
        return within[0] + within[1] - 2 * (sums[0] * sums[1]).sum(0) / (counts[0] * counts[1])


def fourier_features(samples: Pooled) -> Singles:
    """(n, 2 * FREQUENCIES) z with z(x) . z(y) near exp(-|x - y|^2 / (2 h^2)), see :class:`KernelStatistic`."""
    rng = np.random.default_rng([samples.seed, 1])
    some = rng.permutation(len(samples.vectors))[:_MEDIAN_OF]
    bandwidth = float(np.median(scipy.spatial.distance.pdist(samples.vectors[some]))) or 1.0
    frequencies = rng.standard_normal((samples.vectors.shape[1], FREQUENCIES)).astype(np.float32) / bandwidth
    angles = samples.vectors @ frequencies
    waves = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    waves /= np.float32(FREQUENCIES**0.5)
    return waves


def two_samples(samples: Pooled, features: Singles, permutations: int = PERMUTATIONS) -> TwoSamples:
    """Both statistics and p = (1 + permutations at least as extreme) / (1 + permutations).

    Samples are permuted within folds, so that every permutation is stratified as they are.

    Args:
        features: of :func:`fourier_features`.
    """
    tests = DomainClassifier(samples), KernelStatistic(features)
    drawn = _permuted(samples.is_new, samples.folds, permutations, np.random.default_rng([samples.seed, 2]))
    (auroc, auroc_p), (mmd, mmd_p) = (
        (float(values[0]), float(_p_values(values[:1], values[1:])[0]))
        for values in np.concatenate([[test(block) for test in tests] for block in drawn], axis=1)
    )
    return TwoSamples(auroc, auroc_p, mmd, mmd_p)


def by_group(
    samples: Pooled, features: Singles, groups: npt.ArrayLike, fewest: int, permutations: int = PERMUTATIONS
) -> dict[int, GroupTest]:
    """The kernel statistic of each group that has ``fewest`` images in both samples, samples permuted within it.

    Adjusted p: how often the largest of all groups' statistics, each in deviations of its own permutations, is at least
    as large as that of the group. No group is called drifted wrongly with more than that probability, however many
    there are, and the smallest p that can come out does not grow with their number.

    Args:
        features: of :func:`fourier_features`.
        groups: (n,) a number for each image.

    Source: Westfall & Young, Resampling-Based Multiple Testing, 1993, single-step max T.
    """
    numbers, values = np.asarray(groups), {}
    for group in np.unique(numbers).tolist():
        rows = np.flatnonzero(numbers == group)
        is_new = samples.is_new[rows]
        if min(is_new.sum(), (1 - is_new).sum()) < fewest:
            continue
        test, rng = KernelStatistic(features[rows]), np.random.default_rng([samples.seed, 3, group])
        drawn = _permuted(is_new, np.zeros(len(rows), np.int64), permutations, rng)
        values[group] = np.concatenate([test(block) for block in drawn])
    if not values:
        return {}
    table = np.stack([*values.values()])
    standard = (table - table[:, 1:].mean(1, keepdims=True)) / np.maximum(table[:, 1:].std(1, keepdims=True), 1e-300)
    adjusted = _p_values(standard[:, 0], standard[:, 1:].max(0))
    return {
        group: GroupTest(float(own[0]), float(_p_values(own[:1], own[1:])[0]), float(p))
        for (group, own), p in zip(values.items(), adjusted, strict=True)
    }


def _p_values(observed: FloatArray, permuted: FloatArray) -> FloatArray:
    """(k,) (1 + how many of ``permuted`` are at least as large) / (1 + how many there are), of k values."""
    least = observed - _ROUNDING * np.abs(observed)
    return (1 + (permuted >= least[:, None]).sum(1)) / (1 + permuted.size)


def _permuted(
    is_new: Singles, strata: npt.NDArray[np.int64], permutations: int, rng: np.random.Generator
) -> Iterator[Singles]:
    """(n, b) at a time: the labelling itself, then permutations of it within each of the ``strata``."""
    places = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    for begin in range(0, permutations + 1, BLOCK):
        block = np.repeat(is_new[:, None], min(BLOCK, permutations + 1 - begin), axis=1)
        first = begin == 0
        for rows in places:
            block[rows, first:] = rng.permuted(block[rows, first:], axis=0)
        yield block


def _aurocs(scores: Singles, is_new: Singles) -> FloatArray:
    """(b,) AUROC of each column of (n, b) scores, ties counting half."""
    new = is_new.sum(0, dtype=np.float64)
    ranks = np.where(is_new > 0, scipy.stats.rankdata(scores, axis=0), 0).sum(0)
    return (ranks - new * (new + 1) / 2) / (new * (len(scores) - new))
