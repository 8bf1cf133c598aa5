"""Gradient scores as functions of class norms, and the inequalities between them."""

from __future__ import annotations

import math

import torch

from regrad.scores import SCORES, Inputs, Norms
from regrad.scores.registry import EXPONENT


def _inputs() -> Inputs:
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(50, 10, generator=generator, dtype=torch.float64)
    return Inputs(logits, torch.rand(50, 10, generator=generator, dtype=torch.float64) * 3)


def _by_hand(inputs: Inputs, weight: object) -> list[float]:
    rows = []
    assert inputs.norms is not None
    for z, n in zip(inputs.logits.tolist(), inputs.norms.tolist(), strict=True):
        total = sum(math.exp(value) for value in z)
        rows.append(sum(weight(math.exp(value) / total) * norm for value, norm in zip(z, n, strict=True)))  # type: ignore[operator]
    return rows


def test_regrad_weighs_norms_by_the_root_of_the_probability() -> None:
    got = SCORES["regrad"].compute(_inputs())
    torch.testing.assert_close(got, torch.tensor(_by_hand(_inputs(), math.sqrt), dtype=torch.float64))


def test_exgrad_weighs_norms_by_the_probability() -> None:
    got = SCORES["exgrad"].compute(_inputs())
    torch.testing.assert_close(got, torch.tensor(_by_hand(_inputs(), float), dtype=torch.float64))


def test_the_chain_of_inequalities() -> None:
    """exgrad <= sqrt(sum p n^2) <= sum sqrt(p) n <= sqrt(C sum p n^2), and exgrad <= sqrt(max p) sum sqrt(p) n."""
    inputs = _inputs()
    assert inputs.norms is not None
    exgrad, regrad = SCORES["exgrad"].compute(inputs), SCORES["regrad"].compute(inputs)
    middle = (inputs.p * inputs.norms.square()).sum(1).sqrt()
    slack = 1 + 1e-12
    assert bool((exgrad <= slack * middle).all())
    assert bool((middle <= slack * regrad).all())
    assert bool((regrad <= slack * math.sqrt(10) * middle).all())
    assert bool((exgrad <= slack * inputs.p.amax(1).sqrt() * regrad).all())


def test_what_is_smoothed_and_what_is_weighed() -> None:
    assert SCORES["regrad"].norms == Norms(smoothed=True, decayed=True, power=EXPONENT)
    assert SCORES["exgrad_smoothed"].norms == Norms(smoothed=True, decayed=True, power=1.0)
    assert SCORES["exgrad"].norms == Norms(smoothed=False, decayed=False)
