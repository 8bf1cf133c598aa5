"""How well a score separates unknown images from known ones, finds errors, and how honest a confidence is.

Everywhere a larger score means more uncertain. Arrays in, plain floats out; values are fractions, not percentages.
An infinite score (an overflow) ranks above or below every finite one; a NaN is refused, since it has no rank.

    separation    ID against OOD: auroc, aupr, fpr_at_tpr, threshold_at_tpr
    selective     right against wrong: lift_curve, raulc, aurc, augrc, error_auroc
    calibration   confidence against accuracy: accuracy, ece
    counted       the same from counts of images per score, for many resamples at once
    bootstrap     confidence intervals
    paired        confidence intervals of differences between two scorings of the same images
    two_samples   whether two samples of vectors are of one distribution
"""

from regrad.metrics.calibration import accuracy, ece
from regrad.metrics.selective import augrc, aurc, error_auroc, lift_curve, raulc
from regrad.metrics.separation import aupr, auroc, fpr_at_tpr, threshold_at_tpr

__all__ = [
    "accuracy",
    "augrc",
    "aupr",
    "aurc",
    "auroc",
    "ece",
    "error_auroc",
    "fpr_at_tpr",
    "lift_curve",
    "raulc",
    "threshold_at_tpr",
]
