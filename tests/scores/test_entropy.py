"""Scores of the clean prediction."""

from __future__ import annotations

import math

import numpy as np
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
