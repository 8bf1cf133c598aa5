"""Scores that set the last layer's input h against that of training data (``--fit-data``)."""

from __future__ import annotations

import torch
from torch import Tensor

from regrad.scores.registry import Features, Inputs, score
from regrad.scores.statistics import FeatureStatistics

REACT_SHARE = 0.90  # of the training activations that are not clipped
NEIGHBOURS = 50
_RANK = 1e-10  # of the largest variance: directions with less are rounding
_WIDE = ((2048, 1000), (768, 512))  # features that are so many, and as how many dimensions ViM keeps of them


@score(Features(fitted=True))
def react(inputs: Inputs) -> Tensor:
    """-log sum_c exp z'_c, z' = W min(h, t) + b, t the 90th percentile of all activations of training images.

    Source: Sun et al., NeurIPS 2021 (ReAct).
    """
    h, known = _of(inputs)
    return -known.head(h.minimum(known.made(_percentile))).logsumexp(1)


@score(Features(fitted=True))
def knn(inputs: Inputs) -> Tensor:
    """||h / ||h|| - h_k / ||h_k|| ||_2, h_k the 50th nearest of at most 10,000 training images.

    Of fewer than 50 it is the furthest.
    Source: Sun et al., ICML 2022, with the k of its CIFAR-10 tables.
    """
    h, known = _of(inputs)
    unit, others = _unit(h), known.made(_unit_sample)
    squares = unit.square().sum(1, keepdim=True) + others.square().sum(1) - 2 * unit @ others.T
    return squares.kthvalue(min(NEIGHBOURS, len(others)), dim=1).values.clamp_min(0).sqrt()


@score(Features(fitted=True))
def mahalanobis(inputs: Inputs) -> Tensor:
    """min_c (h - m_c)^T S^+ (h - m_c), with the means of the classes and the covariance around them.

    Source: Lee et al., NeurIPS 2018, of the input of the last layer, without its input perturbation.
    """
    h, known = _of(inputs)
    return _nearest(h, known)


@score(Features(fitted=True))
def relative_mahalanobis(inputs: Inputs) -> Tensor:
    """min_c (h - m_c)^T S^+ (h - m_c) - (h - m)^T S_0^+ (h - m), with mean and covariance of all classes together.

    Source: Ren et al., 2021 (A Simple Fix to Mahalanobis Distance).
    """
    h, known = _of(inputs)
    away = h - known.mean
    return _nearest(h, known) - ((away @ known.made(_whole_precision)) * away).sum(1)


@score(Features(fitted=True))
def vim(inputs: Inputs) -> Tensor:
    """s ||R^T (h + W^+ b)|| - log sum_c exp z_c: what of h lies outside the principal space, beside the energy.

    R spans what the leading directions of the training features leave (1000 where there are 2048 or more, 512 from 768
    on, else half), s is the mean of max_c z_c over that of ||R^T (h + W^+ b)|| in training; 0 where training has
    nothing there, as of fewer images than leading directions.
    Source: Wang et al., CVPR 2022 (ViM).
    """
    h, known = _of(inputs)
    origin, rest, factor = known.made(_principal)
    return factor * ((h - origin) @ rest).norm(dim=1) - inputs.logits.logsumexp(1)


@score(Features(fitted=True))
def nci(inputs: Inputs) -> Tensor:
    """-w_y . (h - m) / ||h - m||, y the predicted class, m the mean of the training features.

    Behind neural collapse centred features point to their class's weights. An h at the mean counts as 0.
    Source: Liu & Qin, CVPR 2025 (NCI), without its filter, whose strength is a constant to be tuned.
    """
    h, known = _of(inputs)
    away = h - known.mean
    norm = away.norm(dim=1)
    along = (known.head.weight[inputs.logits.argmax(1)] * away).sum(1)
    return -torch.where(norm > 0, along / norm, 0)


def _nearest(h: Tensor, known: FeatureStatistics) -> Tensor:
    """The smallest squared Mahalanobis distance to the mean of a class, (B,)."""
    means, root = known.class_means, known.made(_within_root)
    return torch.cdist(h @ root, means @ root, compute_mode="donot_use_mm_for_euclid_dist").amin(1).square()


def _percentile(known: FeatureStatistics) -> Tensor:
    values = known.sample.flatten()
    return values.kthvalue(max(1, round(REACT_SHARE * len(values)))).values


def _unit_sample(known: FeatureStatistics) -> Tensor:
    return _unit(known.sample)


def _within_root(known: FeatureStatistics) -> Tensor:
    """A matrix whose square is the pseudo-inverse of the covariance around the means of the classes."""
    means = known.class_means
    between = means.T @ (means * known.counts[known.counts > 0, None]) / known.images
    return _inverse(known.products / known.images - between, root=True)


def _whole_precision(known: FeatureStatistics) -> Tensor:
    return _inverse(known.second_moment(known.mean))


def _principal(known: FeatureStatistics) -> tuple[Tensor, Tensor, Tensor]:
    """ViM's origin (d,), R (d, d - D), and s."""
    head, width = known.head, known.sample.shape[1]
    bias = head.weight.new_zeros(len(head.weight)) if head.bias is None else head.bias
    origin = -torch.linalg.pinv(head.weight) @ bias
    dimensions = next((kept for least, kept in _WIDE if width >= least), width // 2)
    values, vectors = torch.linalg.eigh(known.second_moment(origin))  # the smallest first
    rest = vectors[:, : width - dimensions]
    lengths = ((known.sample - origin) @ rest).norm(dim=1).mean()
    outside = values[width - dimensions - 1] > _RANK * values[-1]  # else what is there is rounding
    return origin, rest, torch.where(outside, head(known.sample).amax(1).mean() / lengths, 0)


def _inverse(covariance: Tensor, root: bool = False) -> Tensor:
    """The pseudo-inverse of a positive semidefinite matrix, or its symmetric ``root``."""
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > _RANK * values[-1]
    scales = torch.where(kept, values, 1).pow(-0.5 if root else -1.0) * kept
    return (vectors * scales) @ vectors.T


def _unit(h: Tensor) -> Tensor:
    return h / h.norm(dim=1, keepdim=True).clamp_min(torch.finfo(h.dtype).tiny)


def _of(inputs: Inputs) -> tuple[Tensor, FeatureStatistics]:
    assert inputs.features is not None
    assert inputs.fitted is not None
    return inputs.features, inputs.fitted
