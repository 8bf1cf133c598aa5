"""The curves of a report as a few hundred points each, from counts of images per distinct score."""

from __future__ import annotations

from typing import Any

import numpy as np

from regrad.runs.scored import Floats, Ints

BINS = 48
POINTS = 200


def histogram(values: Floats, sets: dict[str, Ints], bins: int = BINS) -> dict[str, Any]:
    """Shares of each set per bin, over bins common to all sets.

    The axis is logarithmic where the middle 99 % of the pooled values are positive and span a factor of 50 or
    more. The outermost bins also hold what lies beyond them, so a few extreme images cannot flatten the picture.

    Args:
        values: (k,) distinct values, ascending.
        sets: name -> (k,) images of each value.
        bins: how many.

    Returns:
        ``log``, ``edges`` (bins + 1) and ``shares``: name -> (bins).
    """
    log, edges = edges_of(values, np.sum(list(sets.values()), axis=0), bins)
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, bins - 1)
    shares = {name: np.bincount(place, images, bins) / images.sum() for name, images in sets.items()}
    return {"log": log, "edges": edges.tolist(), "shares": {name: own.tolist() for name, own in shares.items()}}


def edges_of(values: Floats, images: Ints, bins: int = BINS) -> tuple[bool, Floats]:
    """Whether the axis of a :func:`histogram` is logarithmic, and its edges (bins + 1,)."""
    finite = np.abs(values) < np.finfo(np.float64).max  # infinities were counted as the largest number
    below = np.cumsum(images * finite)
    low, high = (float(values[np.searchsorted(below, share * below[-1])]) for share in (0.005, 0.995))
    log = low > 0 and high / low >= 50
    if low == high:
        low, high = low - 0.5, high + 0.5
    return log, np.geomspace(low, high, bins + 1) if log else np.linspace(low, high, bins + 1)


def separation_curves(known: Ints, unknown: Ints) -> dict[str, dict[str, list[float]]]:
    """ROC and precision-recall curve of finding the unknown images, from the highest threshold to the lowest.

    Args:
        known, unknown: (k,) images of each value, ascending.

    Returns:
        ``roc`` with fpr and tpr, ``pr`` with recall and precision.
    """
    filled = known + unknown > 0
    false, caught = (np.r_[0, np.cumsum(images[filled][::-1])] for images in (known, unknown))
    roc = _thin(false / false[-1], caught / caught[-1])
    recall, precision = _thin(caught[1:] / caught[-1], caught[1:] / (caught + false)[1:])
    return {"roc": dict(zip(("fpr", "tpr"), roc, strict=True)), "pr": {"recall": recall, "precision": precision}}


def selective_curves(right: Ints, wrong: Ints) -> dict[str, list[float]]:
    """Lift and risk over coverage, where the most certain images are accepted first.

    Args:
        right, wrong: (k,) predictions of each value, ascending.

    Returns:
        ``coverage``, ``risk`` (share of errors among the accepted) and ``lift`` (their accuracy over that of all).
    """
    filled = right + wrong > 0
    accepted, errors = np.cumsum((right + wrong)[filled]), np.cumsum(wrong[filled])
    risk = errors / accepted
    coverage, risks = _thin(accepted / accepted[-1], risk)
    accuracy = 1 - risk[-1]
    lift = [(1 - value) / accuracy for value in risks] if accuracy > 0 else []
    return {"coverage": coverage, "risk": risks, "lift": lift}


def _thin(x: Floats, y: Floats, points: int = POINTS) -> tuple[list[float], list[float]]:
    """About ``points`` points of a curve, evenly spaced along its length, its ends among them."""
    if x.size > points:
        length = np.r_[0, np.cumsum(np.hypot(np.diff(x), np.diff(y) / max(float(np.ptp(y)), 1e-12)))]
        places = np.unique(np.searchsorted(length, np.linspace(0, length[-1], points)))
        places = np.union1d(np.minimum(places, x.size - 1), [0, x.size - 1])
        x, y = x[places], y[places]
    return [round(float(value), 6) for value in x], [round(float(value), 6) for value in y]
