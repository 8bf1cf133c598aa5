"""Scores that are functions of class-gradient norms ||g_c||, g_c = grad_theta log p(c | x)."""

from __future__ import annotations

import torch
from torch import Tensor

from regrad.scores.registry import EXPONENT, Inputs, Norms, score


@score(Norms(smoothed=True, decayed=True, power=EXPONENT))
def regrad(inputs: Inputs) -> Tensor:
    """sum_c sqrt(p_c) ||a * g_c||, gradients smoothed over N noisy copies, layers weighed towards the last.

    REGrad with layer-selective gradients and perturbation: the paper's method. The norm stands under the root of
    Eq. 11 ("root-normalized"), and p is the prediction on the clean image. ``--exponent`` puts p_c^gamma in place of
    the root: 1 is ExGrad's weighing, 0 UNGrad's.

    Source: Wang & Ji, CVPR 2024, Eqs. 11, 12 and 13.
    """
    return _weighed_sum(inputs)


@score(Norms(smoothed=False, decayed=True, power=EXPONENT))
def regrad_layers(inputs: Inputs) -> Tensor:
    """sum_c sqrt(p_c) ||a * g_c|| on the clean image: REGrad without perturbation.

    Source: Wang & Ji 2024, Eqs. 11 and 12 (the ablation of Table 4).
    """
    return _weighed_sum(inputs)


@score(Norms(smoothed=False, decayed=False))
def regrad_plain(inputs: Inputs) -> Tensor:
    """sum_c sqrt(p_c) ||g_c|| on the clean image, all layers alike: Eq. 11 by itself.

    Source: Wang & Ji 2024, Eq. 11 (the ablation of Table 4).
    """
    return _weighed_sum(inputs)


@score(Norms(smoothed=False, decayed=False))
def exgrad(inputs: Inputs) -> Tensor:
    """sum_c p_c ||g_c|| on the clean image, all layers alike.

    Source: Igoe et al., 2022; Wang & Ji 2024, Eq. 10.
    """
    return _expected(inputs)


@score(Norms(smoothed=False, decayed=True, power=1.0))
def exgrad_layers(inputs: Inputs) -> Tensor:
    """sum_c p_c ||a * g_c|| on the clean image: ExGrad with the layer weights of Eq. 12.

    Source: Igoe et al., 2022; Wang & Ji 2024, Eqs. 10 and 12.
    """
    return _expected(inputs)


@score(Norms(smoothed=True, decayed=True, power=1.0))
def exgrad_smoothed(inputs: Inputs) -> Tensor:
    """sum_c p_c ||a * g_c||, smoothed and weighed like ``regrad``, with p_c in place of sqrt(p_c).

    Source: Igoe et al., 2022; Wang & Ji 2024, Eqs. 10, 12 and 13.
    """
    return _expected(inputs)


@score(Norms(smoothed=False, decayed=False))
def ungrad(inputs: Inputs) -> Tensor:
    """mean_c ||g_c|| on the clean image: the expected norm under a uniform label.

    Classes that the network excludes have the largest gradients, and count as much as the others.
    Source: Igoe et al., 2022; a baseline of Wang & Ji 2024.
    """
    return _norms(inputs).mean(1)


@score(Norms(smoothed=False, decayed=False, target="predicted"))
def negrad(inputs: Inputs) -> Tensor:
    """||sum_c p_c g_c|| on the clean image: identically zero, since the expected score is; listed for completeness.

    What tables show of it is rounding, and so is this column (float32, root of a cancelled square).
    Source: Igoe et al., 2022; a baseline of Wang & Ji 2024.
    """
    return _norms(inputs)


@score(Norms(smoothed=False, decayed=False, target="uniform"))
def gradnorm(inputs: Inputs) -> Tensor:
    """||mean_c g_c|| on the clean image, read as in Wang & Ji's tables: a large norm is uncertain.

    Its own paper reads it the other way round (``gradnorm_negated``), and takes the L1 norm of the last layer; this is
    the L2 norm of all layers. Source: Wang & Ji 2024, section 5; Huang et al., NeurIPS 2021.
    """
    return _norms(inputs)


@score(Norms(smoothed=False, decayed=False, target="uniform"))
def gradnorm_negated(inputs: Inputs) -> Tensor:
    """-||mean_c g_c|| on the clean image, read as in GradNorm's own paper: a large norm is in-distribution.

    Source: Huang et al., NeurIPS 2021, with the L2 norm of all layers.
    """
    return -_norms(inputs)


@score(Norms(smoothed=False, decayed=True, target="contrast"))
def displacement(inputs: Inputs) -> Tensor:
    """-mean_{c != y} log d_c, d_c = (z_y - z_c) / ||a * (g_c - g_y)||, on the clean image.

    y is the most probable class, and d_c how far the parameters must move, at least and to first order, until class c
    is as probable: an image is uncertain if small changes of the network would have it elsewhere. The mean of
    logarithms weighs no class more than another and has no constant. A class that is level with y counts as a distance
    of nearly 0; where there is a single class, the score is 0.

    Source: ours. fDBD (Liu & Qin, ICML 2024) is the like in the space of features, with the mean of distances.
    """
    norms = _norms(inputs)
    predicted = norms.argmin(1, keepdim=True)  # y as the gradients have it: its norm is 0
    margins = inputs.logits.gather(1, predicted) - inputs.logits
    least = torch.finfo(norms.dtype).tiny
    logarithms = margins.clamp_min(least).log() - norms.clamp_min(least).log()
    return -logarithms.scatter(1, predicted, 0).sum(1) / max(1, norms.shape[1] - 1)


def _weighed_sum(inputs: Inputs) -> Tensor:
    return (inputs.p.pow(inputs.exponent) * _norms(inputs)).sum(1)


def _expected(inputs: Inputs) -> Tensor:
    return (inputs.p * _norms(inputs)).sum(1)


def _norms(inputs: Inputs) -> Tensor:
    assert inputs.norms is not None
    return inputs.norms
