"""Functions of the clean prediction alone: scores, mostly aleatoric, at one forward pass, and the likelihood."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from regrad.scores.registry import Inputs, score

_LARGEST, _GEN_EXPONENT = 100, 0.1  # M and gamma of GEN


@score()
def entropy(inputs: Inputs) -> Tensor:
    """-sum_c p_c log p_c of the softmax on the clean image, in nats.

    A class of probability 0 adds 0. Source: Shannon 1948; a baseline of Wang & Ji 2024, Table 1.
    """
    return torch.special.entr(inputs.p).sum(1)


@score()
def exgrad_v(inputs: Inputs) -> Tensor:
    """-sum_c |p_c - 1/C| on the clean image: ExGrad's V term, negated, since it falls with uncertainty.

    Source: Igoe et al., 2022; a baseline of Wang & Ji 2024.
    """
    return -(inputs.p - 1 / inputs.logits.shape[1]).abs().sum(1)


@score()
def max_probability(inputs: Inputs) -> Tensor:
    """-max_c p_c on the clean image.

    Source: Hendrycks & Gimpel, ICLR 2017, negated so that larger is more uncertain.
    """
    return -inputs.p.amax(1)


@score()
def margin(inputs: Inputs) -> Tensor:
    """p_2 - p_1 of the two most probable classes on the clean image: 0 where they tie, -1 where there is one.

    Source: Scheffer et al., IDA 2001, negated.
    """
    largest = inputs.p.topk(min(2, inputs.logits.shape[1]), dim=1).values
    return largest[:, 1:].sum(1) - largest[:, 0]


@score()
def max_logit(inputs: Inputs) -> Tensor:
    """-max_c z_c on the clean image.

    Source: Hendrycks et al., ICML 2022, negated.
    """
    return -inputs.logits.amax(1)


@score()
def energy(inputs: Inputs) -> Tensor:
    """-log sum_c exp z_c on the clean image, in the temperature 1.

    Source: Liu et al., NeurIPS 2020.
    """
    return -inputs.logits.logsumexp(1)


@score()
def gen(inputs: Inputs) -> Tensor:
    """sum_c p_c^0.1 (1 - p_c)^0.1 over the 100 largest p on the clean image: generalised entropy.

    Source: Liu et al., CVPR 2023 (GEN), with its own constants.
    """
    logits = inputs.logits.sort(1, descending=True).values
    total = logits.logsumexp(1, keepdim=True)
    p = (logits - total).exp()
    rest = 1 - p
    rest[:, 0] = (logits[:, 1:].logsumexp(1) - total[:, 0]).exp()  # where p is nearly 1, 1 - p is mostly rounding
    return (p * rest)[:, :_LARGEST].pow(_GEN_EXPONENT).sum(1)


def nll(logits: Tensor, labels: Sequence[int | None]) -> Tensor:
    """-log softmax(logits)[label], float64 (B,); NaN where the label is None or no class."""
    known = [label is not None and 0 <= label < logits.shape[1] for label in labels]
    places = logits.new_tensor([label if fits else 0 for label, fits in zip(labels, known, strict=True)]).long()
    loss = torch.nn.functional.cross_entropy(logits.double(), places, reduction="none")
    return loss.masked_fill(~torch.tensor(known, device=loss.device), math.nan)
