"""Scores of perturbed predictions, beside scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from regrad.scores import SCORES, Inputs

RNG = torch.Generator().manual_seed(0)
LOGITS = 3 * torch.randn(6, 5, generator=RNG, dtype=torch.float64)
DRAWS = (LOGITS[:, None] + torch.randn(6, 4, 5, generator=RNG, dtype=torch.float64)).log_softmax(2)
DIVERGENCES = ("perturb_x", "perturb_theta")
INFORMATION = ("mc_aa", "inserted_dropout", "laplace")


@pytest.mark.parametrize("name", DIVERGENCES)
def test_the_mean_divergence_from_the_clean_prediction(name: str) -> None:
    p, q = DRAWS.exp().numpy(), LOGITS.softmax(1).numpy()
    wanted = stats.entropy(p, q[:, None], axis=2).mean(1)
    np.testing.assert_allclose(SCORES[name].compute(Inputs(LOGITS, draws=DRAWS)), wanted, rtol=1e-12)


@pytest.mark.parametrize("name", INFORMATION)
def test_mutual_information_over_the_draws(name: str) -> None:
    p = DRAWS.exp().numpy()
    wanted = stats.entropy(p.mean(1), axis=1) - stats.entropy(p, axis=2).mean(1)
    np.testing.assert_allclose(SCORES[name].compute(Inputs(LOGITS, draws=DRAWS)), wanted, rtol=1e-10)


@pytest.mark.parametrize("name", [*DIVERGENCES, *INFORMATION])
def test_draws_that_change_nothing_score_zero_also_where_a_probability_is_zero(name: str) -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0], [0.0, 0.0, -2000.0]], dtype=torch.float64)
    draws = logits.log_softmax(1)[:, None].expand(2, 3, 3)
    got = SCORES[name].compute(Inputs(logits, draws=draws))
    torch.testing.assert_close(got, torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-12)
