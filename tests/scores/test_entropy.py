"""Scores of the clean prediction."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from regrad.scores import SCORES, Inputs

LOGITS = 5 * torch.randn(40, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_entropy_is_scipys() -> None:
    wanted = stats.entropy(LOGITS.softmax(1).numpy(), axis=1)
    np.testing.assert_allclose(SCORES["entropy"].compute(Inputs(LOGITS)), wanted, rtol=1e-12, atol=1e-14)


def test_entropy_is_safe_where_a_probability_is_zero() -> None:
    logits = torch.tensor([[0.0, -2000.0, -2000.0], [0.0, 0.0, -2000.0]], dtype=torch.float64)
    got = SCORES["entropy"].compute(Inputs(logits))
    torch.testing.assert_close(got, torch.tensor([0.0, math.log(2)], dtype=torch.float64))


def test_max_probability_is_negated() -> None:
    got = SCORES["max_probability"].compute(Inputs(torch.tensor([[0.0, math.log(3.0)]], dtype=torch.float64)))
    torch.testing.assert_close(got, torch.tensor([-0.75], dtype=torch.float64))


def test_generalised_entropy_of_a_confident_image_is_no_rounding() -> None:
    """Logits 60 and 0: p = 1 / (1 + e^60), of which 1 - p knows nothing in float64."""
    got = SCORES["gen"].compute(Inputs(torch.tensor([[60.0, 0.0]], dtype=torch.float64)))
    assert float(got) == pytest.approx(2 * math.exp(-60 * 0.1), rel=1e-12)


def test_generalised_entropy_is_of_the_hundred_largest() -> None:
    logits = torch.randn(3, 150, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    p = np.sort(logits.softmax(1).numpy(), axis=1)[:, 50:]
    np.testing.assert_allclose(SCORES["gen"].compute(Inputs(logits)), ((p * (1 - p)) ** 0.1).sum(1), rtol=1e-10)
