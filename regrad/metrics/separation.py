"""How well a score separates unknown images (OOD) from known ones (ID)."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt
import sklearn.metrics

from regrad.metrics.arrays import BoolArray, FloatArray, vector


def auroc(id_scores: npt.ArrayLike, ood_scores: npt.ArrayLike) -> float:
    """P(s_ood > s_id) + P(s_ood = s_id) / 2 for one image drawn from each set.

    1 is a perfect separation, 0.5 none, 0 a reversed one. It does not depend on how large the two sets are.

    Args:
        id_scores: (n,) scores of in-distribution images.
        ood_scores: (m,) scores of out-of-distribution images.

    Raises:
        ValueError: an array is empty, not one-dimensional, or holds a NaN.

    Source: scikit-learn's ``roc_auc_score``, OOD positive.
    """
    is_ood, scores = _pooled(id_scores, ood_scores)
    return float(sklearn.metrics.roc_auc_score(is_ood, scores))


def aupr(id_scores: npt.ArrayLike, ood_scores: npt.ArrayLike, positive: Literal["ood", "id"] = "ood") -> float:
    """sum_t (R_t - R_{t-1}) P_t over the thresholds t, with P the precision and R the recall: average precision.

    Chance level is the share of positives, so values from sets of different sizes do not compare.

    Args:
        id_scores: (n,) scores of in-distribution images.
        ood_scores: (m,) scores of out-of-distribution images.
        positive: which images are to be found: ``ood`` by large scores, or ``id`` by small ones.

    Raises:
        ValueError: an array is empty, not one-dimensional, or holds a NaN; ``positive`` is another word.

    Source: scikit-learn's ``average_precision_score`` (a step function, no interpolation).
    """
    is_ood, scores = _pooled(id_scores, ood_scores)
    if positive == "ood":
        return float(sklearn.metrics.average_precision_score(is_ood, scores))
    if positive == "id":
        return float(sklearn.metrics.average_precision_score(~is_ood, -scores))
    raise ValueError(f"positive must be 'ood' or 'id', not {positive!r}")


def threshold_at_tpr(ood_scores: npt.ArrayLike, tpr: float = 0.95) -> float:
    """max { t : share of OOD images with s >= t is at least tpr }: the highest bar that catches enough of them.

    Args:
        ood_scores: (m,) scores of out-of-distribution images.
        tpr: the share to be caught, in (0, 1].

    Raises:
        ValueError: the array is empty, not one-dimensional, or holds a NaN; ``tpr`` is outside (0, 1].
    """
    if not 0 < tpr <= 1:
        raise ValueError(f"tpr must be in (0, 1], not {tpr}")
    scores = vector(ood_scores, "ood_scores")
    caught = max(1, math.ceil(round(tpr * scores.size, 9)))  # rounded: 0.95 * n may land a hair above a whole number
    rank = scores.size - caught
    return float(np.partition(scores, rank)[rank])


def fpr_at_tpr(id_scores: npt.ArrayLike, ood_scores: npt.ArrayLike, tpr: float = 0.95) -> float:
    """Share of ID images with s >= t, t = threshold_at_tpr: the false alarms that catching ``tpr`` of the OOD costs.

    OOD is the positive class: "FPR95" here is the false alarm rate at 95 % of OOD images caught. Some papers
    take ID as positive instead (OOD images let through while 95 % of the ID images pass); the two differ.

    Args:
        id_scores: (n,) scores of in-distribution images.
        ood_scores: (m,) scores of out-of-distribution images.
        tpr: the share of OOD images to be caught, in (0, 1].

    Raises:
        ValueError: an array is empty, not one-dimensional, or holds a NaN; ``tpr`` is outside (0, 1].

    Source: Liang et al. (ODIN), ICLR 2018, with the classes as stated. A point of scikit-learn's ``roc_curve``.
    """
    threshold = threshold_at_tpr(ood_scores, tpr)
    return float(np.mean(vector(id_scores, "id_scores") >= threshold))


def _pooled(id_scores: npt.ArrayLike, ood_scores: npt.ArrayLike) -> tuple[BoolArray, FloatArray]:
    """(n + m,) whether an image is OOD, and its score."""
    known, unknown = vector(id_scores, "id_scores"), vector(ood_scores, "ood_scores")
    return np.r_[np.zeros(known.size, bool), np.ones(unknown.size, bool)], np.r_[known, unknown]
