"""Scores that are functions of the clean prediction alone: one forward pass, mostly aleatoric."""

from __future__ import annotations

import torch
from torch import Tensor

from regrad.scores.registry import Inputs, score


@score()
def entropy(inputs: Inputs) -> Tensor:
    """-sum_c p_c log p_c of the softmax on the clean image, in nats.

    A class of probability 0 adds 0. Source: Shannon 1948; a baseline of Wang & Ji 2024, Table 1.
    """
    return torch.special.entr(inputs.p).sum(1)


@score()
def max_probability(inputs: Inputs) -> Tensor:
    """-max_c p_c on the clean image.

    Source: Hendrycks & Gimpel, ICLR 2017, negated so that larger is more uncertain.
    """
    return -inputs.p.amax(1)
