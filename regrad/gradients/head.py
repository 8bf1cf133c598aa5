"""The last layer in closed form: its class gradients follow from one forward pass, for all classes at once.

For logits z_i = W h_i + b and a target distribution q, with k(i, j) = h_i . h_j + 1 (the 1 is the bias),

    ||g_q||^2 = 1/(N+1)^2 sum_ij (q - p_i) . (q - p_j) k(i, j).
"""

from __future__ import annotations

import torch
from torch import Tensor


def squared_norms(h: Tensor, p: Tensor, extra: Tensor, bias: bool = True) -> Tensor:
    """||g_q||^2 of a Linear head for the C classes, then the ``extra`` targets.

    Args:
        h: the head's input, (B, N+1, d).
        p: probabilities of every copy, float64 (B, N+1, C).
        extra: further target distributions, float64 (B, E, C).
        bias: whether the head's bias counts.

    Returns:
        float64 (B, C + E).
    """
    h = h.double()
    kernel = (h @ h.transpose(1, 2) + float(bias)) / h.shape[1] ** 2
    # (q - p_i) . (q - p_j) = q.q - q.p_i - q.p_j + p_i.p_j; for a class q.q = 1 and q.p_i = p_i[c].
    base = (kernel * (p @ p.transpose(1, 2))).sum((1, 2))
    total, rows = kernel.sum((1, 2)), kernel.sum(2)
    overlap = torch.cat([p, p @ extra.transpose(1, 2)], dim=2)
    own = torch.cat([p.new_ones(len(p), p.shape[2]), extra.square().sum(2)], dim=1)
    squared = own * total[:, None] - 2 * torch.einsum("bi,bit->bt", rows, overlap) + base[:, None]
    return squared.clamp_min_(0)
