"""Prediction sets against their definition, written down class by class; and coverage where images are exchangeable."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from regrad.errors import UsageError
from regrad.metrics.conformal import Quantiles
from regrad.metrics.temperature import label_losses
from regrad.scores.sets import ROUNDING, loss_bound, prediction_sets


def members(logits: torch.Tensor, bound: float) -> list[list[int]]:
    return [[int(c) for c in row if c >= 0] for row in prediction_sets(logits, bound)]


SIZES = {0.05: {0, 1}, 0.7: {0, 1}, 2.0: {1, 2, 3, 4}, 6.0: {3, 4, 5, 6}}


@pytest.mark.parametrize("bound", SIZES)
def test_a_class_is_in_where_its_loss_is_within_the_bound(bound: float) -> None:
    logits = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)).mul(2)
    wanted = []
    for row in logits.tolist():
        p = [math.exp(z) / sum(math.exp(other) for other in row) for z in row]
        within = [c for c in range(6) if -math.log(p[c]) <= bound * (1 + ROUNDING)]
        wanted.append(sorted(within, key=lambda c: -p[c]))
    assert members(logits, bound) == wanted
    assert prediction_sets(logits, bound).dtype == torch.int32
    assert {len(row) for row in wanted} == SIZES[bound]  # else little is compared


def test_what_ties_with_the_bound_is_in() -> None:
    ties = torch.tensor([[1.0, 1.0, 0.0]])
    bound = float(-ties.double().log_softmax(1)[0, 0])
    assert members(ties, bound) == [[0, 1]]
    assert members(ties.float() * (1 + 1e-7), bound) == [[0, 1]]  # also in another rounding
    assert members(torch.tensor([[math.nan, 1.0, 2.0]]), 5.0) == [[]]


@pytest.mark.parametrize(("coverage", "coarse"), [(0.9, False), (0.8, False), (0.9, True)])
def test_sets_hold_the_label_as_often_as_promised(coverage: float, coarse: bool) -> None:
    """400 times 99 images for the quantiles and 50 new ones, of a network that is too sure; also with many ties."""
    rng = np.random.default_rng(5)
    held = []
    for _ in range(400):
        logits = rng.normal(0, 2, (149, 5))
        labels = (logits / 3 + rng.gumbel(size=logits.shape)).argmax(1)
        logits = logits.round() if coarse else logits
        bound = Quantiles.of(label_losses(logits[:99], labels[:99])).at(coverage)
        sets = prediction_sets(torch.tensor(logits[99:]), bound)
        held.append(float((sets == torch.tensor(labels[99:, None])).any(1).double().mean()))
    spread = 4 * np.std(held) / math.sqrt(len(held))
    assert np.mean(held) >= coverage - spread
    if not coarse:
        assert np.mean(held) <= coverage + 0.01 + spread  # 99 images: at most one in a hundred more


def test_without_a_calibration_there_is_no_bound() -> None:
    assert loss_bound(None, None) is None
    with pytest.raises(UsageError, match=r"^coverage 0\.9: needs --temperature FILE"):
        loss_bound(None, 0.9)
