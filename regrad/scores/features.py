"""Scores that are functions of the last Linear layer and its input h: one forward pass, and no training data."""

from __future__ import annotations

import torch
from torch import Tensor

from regrad.scores.registry import Features, Head, Inputs, score

ASH_SHARE, SCALE_SHARE = 0.90, 0.85  # of the activations that are pruned, or left out of the second sum


@score(Features())
def ash(inputs: Inputs) -> Tensor:
    """-log sum_c exp z'_c, z' = W s + b, where s is the largest tenth of h, times exp(sum h / sum s), and else 0.

    ASH-S. The sums are of positive activations, as those behind a ReLU are.
    Source: Djurisic et al., ICLR 2023, with the percentile 90 of its ImageNet tables.
    """
    h, head = _of(inputs)
    kept = _largest(h, ASH_SHARE)
    return -head(h.where(kept, 0) * _surplus(h, kept).exp()).logsumexp(1)


@score(Features())
def scale(inputs: Inputs) -> Tensor:
    """-log sum_c exp z'_c, z' = W h r + b, r = exp(sum h / sum of the largest 15 % of h).

    The sums are of positive activations, as those behind a ReLU are.
    Source: Xu et al., ICLR 2024 (SCALE), with its percentile 85.
    """
    h, head = _of(inputs)
    return -head(h * _surplus(h, _largest(h, SCALE_SHARE)).exp()).logsumexp(1)


@score(Features())
def feature_norm(inputs: Inputs) -> Tensor:
    """-||h||_2: a network has small features for what it does not know.

    Source: Park et al., ICCV 2023, of the input of the last layer.
    """
    return -_of(inputs)[0].norm(dim=1)


@score(Features())
def fdbd(inputs: Inputs) -> Tensor:
    """-mean_{c != y} (z_y - z_c) / ||w_y - w_c|| / ||h||: how near the boundaries of the predicted class y are.

    Classes whose weights are those of y have no boundary, and count as distance 0; so does an h of zeros.
    Source: Liu & Qin, ICML 2024 (fDBD), in the form without training data, normalised by the feature norm.
    """
    h, head = _of(inputs)
    largest, predicted = inputs.logits.max(1)
    apart = torch.cdist(head.weight, head.weight, compute_mode="donot_use_mm_for_euclid_dist")[predicted]
    distances = torch.where(apart > 0, (largest[:, None] - inputs.logits) / apart, 0)
    mean = distances.sum(1) / max(1, inputs.logits.shape[1] - 1)
    norm = h.norm(dim=1)
    return -torch.where(norm > 0, mean / norm, 0)


@score(Features())
def exgrad_l1_last(inputs: Inputs) -> Tensor:
    """sum_c p_c ||g_c||_1 = 2 sum_c p_c (1 - p_c) (||h||_1 + 1), of the last layer alone; the 1 is its bias.

    ExGrad as its authors' code has it: the L1 norm, and the weight and bias of the last layer.
    Source: Igoe et al., 2022, and their code.
    """
    h, head = _of(inputs)
    size = h.abs().sum(1) + float(head.bias is not None)
    return 2 * (inputs.p * (1 - inputs.p)).sum(1) * size


def _largest(h: Tensor, left_out: float) -> Tensor:
    """Which activations of each image are among its largest, all but the share ``left_out``: bool (B, d)."""
    width = h.shape[1]
    places = h.topk(max(1, width - round(width * left_out)), dim=1).indices
    return torch.zeros_like(h, dtype=torch.bool).scatter_(1, places, True)


def _surplus(h: Tensor, kept: Tensor) -> Tensor:
    """sum h / sum of what is ``kept`` of it, over positive activations, (B, 1): at least 1, and 1 where none is."""
    positive = h.clamp_min(0)
    whole, part = positive.sum(1, keepdim=True), positive.where(kept, 0).sum(1, keepdim=True)
    return torch.where(part > 0, whole / part, 1)


def _of(inputs: Inputs) -> tuple[Tensor, Head]:
    assert inputs.features is not None
    assert inputs.head is not None
    return inputs.features, inputs.head
