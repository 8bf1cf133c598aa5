"""Scores that are functions of class-gradient norms ||g_c||, g_c = grad_theta log p(c | x)."""

from __future__ import annotations

from torch import Tensor

from regrad.scores.registry import Inputs, Norms, score


@score(Norms(smoothed=True, decayed=True))
def regrad(inputs: Inputs) -> Tensor:
    """sum_c sqrt(p_c) ||a * g_c||, gradients smoothed over N noisy copies, layers weighed towards the last.

    REGrad with layer-selective gradients and perturbation: the paper's method. The norm stands under the root of
    Eq. 11 ("root-normalized"), and p is the prediction on the clean image.

    Source: Wang & Ji, CVPR 2024, Eqs. 11, 12 and 13.
    """
    return (inputs.p.sqrt() * _norms(inputs)).sum(1)


@score(Norms(smoothed=False, decayed=False))
def exgrad(inputs: Inputs) -> Tensor:
    """sum_c p_c ||g_c|| on the clean image, all layers alike.

    Source: Igoe et al., 2022; Wang & Ji 2024, Eq. 10.
    """
    return (inputs.p * _norms(inputs)).sum(1)


def _norms(inputs: Inputs) -> Tensor:
    assert inputs.norms is not None
    return inputs.norms
