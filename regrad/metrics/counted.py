"""The metrics from counts: cells in ascending order of score, and how many images of each kind lie in each.

All images of a cell are tied. Arrays are (..., k) for k cells; leading axes are resamples, computed at once. Each
formula equals that of :mod:`regrad.metrics.separation` or :mod:`regrad.metrics.selective` on the images themselves;
a result is NaN where there is no image of a kind that the metric needs.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import digamma

from regrad.metrics.arrays import FloatArray

Counts = npt.NDArray[np.int64] | FloatArray


def auroc(known: Counts, unknown: Counts) -> FloatArray:
    """sum_j u_j (sum_{i<j} k_i + k_j / 2) / (K U).

    Args:
        known, unknown: (..., k) images per cell, in total K and U.
    """
    below = np.cumsum(known, axis=-1) - 0.5 * known
    with np.errstate(invalid="ignore", divide="ignore"):
        share = below / known.sum(axis=-1, keepdims=True)
        return (unknown * share).sum(axis=-1) / unknown.sum(axis=-1)


def auroc_error(known: Counts, unknown: Counts) -> float:
    """sum_j k_j u_j / (2 K U): how far :func:`auroc` can be off if the ties inside the cells are no real ones.

    Args:
        known, unknown: (k,) images per cell, in total K and U.
    """
    return float((known / known.sum() * (unknown / unknown.sum())).sum() / 2)


def aupr(known: Counts, unknown: Counts, positive: Literal["ood", "id"] = "ood") -> FloatArray:
    """sum_t (R_t - R_{t-1}) P_t over the cells t, from the most uncertain (``ood``) or the most certain (``id``).

    Args:
        known, unknown: (..., k) images per cell.
        positive: which images are to be found.
    """
    wanted, other = (unknown[..., ::-1], known[..., ::-1]) if positive == "ood" else (known, unknown)
    caught = np.cumsum(wanted, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(other.any(axis=-1, keepdims=True), caught / (caught + np.cumsum(other, axis=-1)), np.nan)
        return np.where(wanted > 0, wanted * precision, 0.0).sum(axis=-1) / wanted.sum(axis=-1)


def cell_at_tpr(unknown: Counts, tpr: float = 0.95) -> npt.NDArray[np.int64]:
    """max { t : sum_{j>=t} u_j >= tpr U }: the highest cell from which on ``tpr`` of the OOD images are caught.

    Args:
        unknown: (..., k) images per cell.
        tpr: the share to be found, in (0, 1].
    """
    caught = np.cumsum(unknown[..., ::-1], axis=-1)
    # A hair less than tpr U: 0.95 times a whole number may land above one.
    enough = caught >= tpr * unknown.sum(axis=-1, keepdims=True) - 1e-9 * caught[..., -1:]
    return unknown.shape[-1] - 1 - np.argmax(enough, axis=-1)


def fpr_at_tpr(known: Counts, unknown: Counts, tpr: float = 0.95, spread: bool = False) -> FloatArray:
    """sum_{j>=t} k_j / K with t = :func:`cell_at_tpr`.

    Args:
        known, unknown: (..., k) images per cell.
        tpr: the share of OOD images to be found, in (0, 1].
        spread: take the images of cell t as spread evenly over it and not as tied: for cells that were merged.
    """
    cell = np.expand_dims(cell_at_tpr(unknown, tpr), -1)

    def above(counts: Counts) -> npt.NDArray[Any]:
        return np.take_along_axis(np.cumsum(counts[..., ::-1], axis=-1)[..., ::-1], cell, axis=-1)[..., 0]

    flagged, total = above(known), known.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        if spread:
            spare = (above(unknown) - tpr * unknown.sum(axis=-1)).clip(0)
            part = spare / np.take_along_axis(unknown, cell, axis=-1)[..., 0]
            flagged = flagged - part * np.take_along_axis(known, cell, axis=-1)[..., 0]
        return flagged / total


def aurc(right: Counts, wrong: Counts) -> FloatArray:
    """1/n sum_{m=1..n} (errors among the m most certain) / m, expected over every order of tied images.

    In a cell of c images with e errors, after N images with E errors, the terms sum to
    e + (E - e N / c) (H(N + c) - H(N)), with H the harmonic numbers.

    Args:
        right, wrong: (..., k) right and wrong predictions per cell.
    """
    images = right + wrong
    before = np.cumsum(images, axis=-1) - images
    errors_before = np.cumsum(wrong, axis=-1) - wrong
    harmonic = digamma(before + images + 1.0) - digamma(before + 1.0)
    excess = errors_before - wrong * before / np.maximum(images, 1)
    with np.errstate(invalid="ignore"):
        return (wrong + excess * harmonic).sum(axis=-1) / images.sum(axis=-1)


def raulc(right: Counts, wrong: Counts) -> FloatArray:
    """(q - AURC) / (q - AURC of the oracle), with q the share of errors.

    Since lift is (1 - risk) / (1 - q), this is AULC over the oracle's AULC.

    Args:
        right, wrong: (..., k) right and wrong predictions per cell.

    Returns:
        (...) the ratio; NaN where every prediction is right or every one is wrong.
    """
    hits, errors = right.sum(axis=-1, keepdims=True), wrong.sum(axis=-1, keepdims=True)
    none = np.zeros_like(hits)
    # Two cells, the right ones first: errors come after every right prediction.
    oracle = aurc(np.concatenate([hits, none], axis=-1), np.concatenate([none, errors], axis=-1))
    total, wrongs = (hits + errors)[..., 0], errors[..., 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = wrongs / total
        ratio = (share - aurc(right, wrong)) / (share - oracle)
    return np.where((wrongs > 0) & (wrongs < total), ratio, np.nan)


def augrc(right: Counts, wrong: Counts) -> FloatArray:
    """(1 - A) q (1 - q) + q^2 / 2, with q the share of errors and A the AUROC of finding them.

    Args:
        right, wrong: (..., k) right and wrong predictions per cell.

    Returns:
        (...) the area; 0 where every prediction is right, 1/2 where every one is wrong.
    """
    errors = wrong.sum(axis=-1)
    with np.errstate(invalid="ignore"):
        share = errors / (errors + right.sum(axis=-1))
    mixed = (share > 0) & (share < 1)
    return np.where(mixed, (1 - auroc(right, wrong)) * share * (1 - share), 0.0) + share**2 / 2


def quantile(images: Counts, share: float) -> int:
    """min { t : sum_{j>t} n_j <= (1 - share) n }: above this cell lie at most 1 - ``share`` of the images.

    Args:
        images: (k,) images per cell.
        share: in (0, 1).
    """
    above = np.cumsum(images[::-1])[::-1] - images
    return int(np.count_nonzero(above > (1 - share + 1e-9) * images.sum()))


def thresholded_accuracy(wrong: Counts, right: Counts, images: Counts) -> FloatArray:
    """sum_j a_j n_j / N: the share of images at least as sure as t, where as many labelled images are as are right.

    Cells are of confidence, ascending. a_j is 1 above the cell that t lies in, 0 below it, and in it the share of its
    labelled images that makes up the number of right ones: so the labelled images themselves have their accuracy.

    Args:
        wrong, right: (..., k) labelled images per cell.
        images: (..., k) images per cell, in total N.

    Source: Garg et al., Leveraging Unlabeled Data to Predict Out-of-Distribution Performance, ICLR 2022: average
    thresholded confidence, with the largest probability for its score.
    """
    labelled = wrong + right
    above = np.cumsum(labelled[..., ::-1], axis=-1)[..., ::-1] - labelled
    missing = right.sum(axis=-1, keepdims=True) - above
    with np.errstate(invalid="ignore"):
        share = np.clip(missing / np.maximum(labelled, 1), 0, 1)
        estimate: FloatArray = (share * images).sum(axis=-1) / images.sum(axis=-1)
        return estimate
