"""REGrad and ExGrad without a network's features, and REGrad with other exponents; a module for ``--score-module``.

The gradient of log p(c | x) for the last layer's bias is e_c - p, so the first are the scores of that bias: what of
them is a function of the softmax alone.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from regrad.scores import SCORES, Inputs, Norms, score


@score()
def regrad_bias(inputs: Inputs) -> Tensor:
    """sum_c sqrt(p_c) ||e_c - p|| on the clean image: REGrad of the last layer's bias, from one forward pass.

    Source: Wang & Ji 2024, Eq. 11, with the gradient of one block of parameters.
    """
    return (inputs.p.sqrt() * _norms(inputs.p)).sum(1)


@score()
def exgrad_bias(inputs: Inputs) -> Tensor:
    """sum_c p_c ||e_c - p|| on the clean image: ExGrad of the last layer's bias, from one forward pass.

    Source: Igoe et al., 2022; Wang & Ji 2024, Eq. 10, with the gradient of one block of parameters.
    """
    return (inputs.p * _norms(inputs.p)).sum(1)


@score(Norms(smoothed=False, decayed=True))
def regrad_35(inputs: Inputs) -> Tensor:
    """sum_c p_c^0.35 ||a * g_c|| on the clean image: ``regrad_layers`` with ``--exponent 0.35``.

    Source: Wang & Ji 2024, Eqs. 11 and 12, with another exponent.
    """
    return SCORES["regrad_layers"].compute(replace(inputs, exponent=0.35))


@score(Norms(smoothed=False, decayed=True))
def regrad_25(inputs: Inputs) -> Tensor:
    """sum_c p_c^0.25 ||a * g_c|| on the clean image: ``regrad_layers`` with ``--exponent 0.25``.

    Source: Wang & Ji 2024, Eqs. 11 and 12, with another exponent.
    """
    return SCORES["regrad_layers"].compute(replace(inputs, exponent=0.25))


def _norms(p: Tensor) -> Tensor:
    """||e_c - p|| = sqrt(1 - 2 p_c + sum_k p_k^2), (B, C)."""
    return (1 - 2 * p + p.square().sum(1, keepdim=True)).clamp_min(0).sqrt()
