"""Scores that are functions of how predictions change when the input or the network is perturbed."""

from __future__ import annotations

import torch
from torch import Tensor

from regrad.scores.registry import Inputs, Predictions, score


@score(Predictions("noise"))
def perturb_x(inputs: Inputs) -> Tensor:
    """mean_k KL(p(x + e_k) || p(x)) over the N noisy copies of the image.

    Source: Wang & Ji 2024, Eq. 8.
    """
    return _mean_divergence(inputs)


@score(Predictions("parameters"))
def perturb_theta(inputs: Inputs) -> Tensor:
    """mean_k KL(p(x; theta + d_k) || p(x; theta)) over draws of all parameters, the same for every image.

    d_k ~ N(0, sigma^2 I); ``--theta-sigma`` is sigma, ``--draws`` how many. For small sigma half of
    sigma^2 sum_c p_c ||g_c||^2, which is the relation of Proposition 3.5.
    Source: Wang & Ji 2024, Eq. 5.
    """
    return _mean_divergence(inputs)


@score(Predictions("adversarial"))
def mc_aa(inputs: Inputs) -> Tensor:
    """H(mean_k p_k) - mean_k H(p_k): mutual information over steps along the sign of the input gradient, both ways.

    The largest step is ``--sigma``, so that it moves an image as far as the noise does; ``--draws`` is how many steps.
    Source: Alarab & Prakoonwit, 2021 (MC-AA), who report mutual information; FGSM: Goodfellow et al., ICLR 2015.
    """
    return _mutual_information(inputs)


@score(Predictions("dropout"))
def inserted_dropout(inputs: Inputs) -> Tensor:
    """H(mean_k p_k) - mean_k H(p_k), mutual information over dropout masks put into any network.

    Whole channels or features are dropped, ``--dropout-at`` says where, with the rate ``--dropout-rate``; the masks are
    a function of seed and id.
    Source: Ledda, Fumera & Roli, 2023 (dropout injection).
    """
    return _mutual_information(inputs)


@score(Predictions("laplace"))
def laplace(inputs: Inputs) -> Tensor:
    """H(mean_k p_k) - mean_k H(p_k): mutual information over draws of a posterior that was fitted on training data.

    Needs ``--fit-data``: labelled training shards. The posterior is laplace-torch's, Kronecker-factored over the last
    layer, or diagonal over all layers of a small network (:mod:`regrad.scores.draws.posterior`).
    Source: Daxberger et al., NeurIPS 2021; a baseline of Wang & Ji 2024.
    """
    return _mutual_information(inputs)


def _mean_divergence(inputs: Inputs) -> Tensor:
    draws = _draws(inputs)
    return (draws.exp() * (draws - inputs.log_p[:, None])).sum(2).mean(1)


def _mutual_information(inputs: Inputs) -> Tensor:
    p = _draws(inputs).exp()
    return torch.special.entr(p.mean(1)).sum(1) - torch.special.entr(p).sum(2).mean(1)


def _draws(inputs: Inputs) -> Tensor:
    assert inputs.draws is not None
    return inputs.draws
