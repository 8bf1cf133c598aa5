"""Prediction sets: the classes that an image may well be of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from regrad.errors import UsageError

if TYPE_CHECKING:
    from regrad.calibration import Calibration

ROUNDING = 1e-4  # of the bound: dividing a network's last layer and dividing its logits round differently


def prediction_sets(logits: Tensor, bound: float) -> Tensor:
    """{c : -log p_c <= q}, p = softmax(z / T), most probable first: int32 (B, C), filled up with -1.

    With q from the losses of the labels of n images that are exchangeable with the one in question
    (:class:`regrad.metrics.conformal.Quantiles`), P(y in the set) >= c, whatever the network: the loss of the image's
    own label is one more such number. That is a promise of all images together, not of each class or kind of them, and
    of none that are drawn otherwise. A class that ties with q is in.

    Were p the true probabilities, no sets of this coverage would be smaller on average; and they need one number and no
    random draws. Where no class is as probable as the labels of the share c of the images were, the set is empty: the
    image is unlike most of these.

    Args:
        logits: z / T, (B, C).
        bound: q, in nats.

    Source: Sadinle, Lei & Wasserman, Least Ambiguous Set-Valued Classifiers, 2019, in terms of -log p.
    """
    losses, classes = torch.sort(-logits.double().log_softmax(1), dim=1, stable=True)
    return classes.int().masked_fill(~(losses <= bound * (1 + ROUNDING)), -1)


def loss_bound(calibration: Calibration | None, coverage: float | None) -> float | None:
    """q of :func:`prediction_sets` for this coverage; None where none is asked for.

    Raises:
        UsageError: there is no calibration, or it was made of too few images.
    """
    if coverage is None:
        return None
    if calibration is None:
        raise UsageError(f"coverage {coverage:g}: needs --temperature FILE, a calibration that `regrad calibrate` made")
    return calibration.loss_bound(coverage)
