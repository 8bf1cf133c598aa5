"""REGrad and ExGrad without a network's features: what of them is a function of the softmax alone.

The gradient of log p(c | x) for the last layer's bias is e_c - p, so these are the scores of that bias; a module for
``--score-module``.
"""

from __future__ import annotations

from torch import Tensor

from regrad.scores import Inputs, score


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


def _norms(p: Tensor) -> Tensor:
    """||e_c - p|| = sqrt(1 - 2 p_c + sum_k p_k^2), (B, C)."""
    return (1 - 2 * p + p.square().sum(1, keepdim=True)).clamp_min(0).sqrt()
