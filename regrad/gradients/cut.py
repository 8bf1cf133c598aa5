"""Where a network may be cut: the layers whose share of the weighted gradient is below a tolerance are left out.

With signs s_c = +-1 drawn at random, v = sum_c s_c sqrt(p_c) (e_c - p) is a logit cotangent with

    E ||a_l J_l^T v||^2 = sum_c p_c ||a_l g_c^(l)||^2,

so one backward pass through the whole network estimates what every layer contributes. Layer weights alone are no sound
criterion: upstream layers of a trained network have up to 30 times the squared norm of the last. The estimate is taken
on fixed seeded probes, so the cut is a function of network and configuration alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from regrad.gradients.layers import Layer, layer_parameters
from regrad.gradients.norms import squared_norm
from regrad.network.copies import plain_attention
from regrad.network.hooks import pulled_back, requiring_grad

PROBES, DRAWS = 8, 2


def layer_shares(
    network: nn.Module, layers: list[Layer], weights: Tensor, inputs: Tensor, power: float = 1.0
) -> Tensor:
    """Each layer's mean share of sum_c p_c^power ||a g_c||^2 over ``inputs``: float64 (len(layers),), sums to 1.

    Args:
        network: a private copy; its parameters are asked for gradients in between.
        layers, weights: the layers and their a_l, (len(layers),).
        inputs: what the network receives, (B, channels, H, W).
        power: 0 for the mean over all classes alike.
    """
    groups = layer_parameters(network, layers)
    parameters = [parameter for group in groups for parameter in group]
    signs = torch.Generator().manual_seed(0)
    shares = torch.zeros(len(layers), dtype=torch.float64)
    with requiring_grad(parameters), torch.enable_grad(), plain_attention():
        for image in inputs:
            logits = network(image[None])
            p = logits.detach().double().softmax(1)
            contributions = torch.zeros(len(layers), dtype=torch.float64)
            for draw in range(DRAWS):
                s = (torch.randint(0, 2, p.shape, generator=signs).to(p) * 2 - 1) * p.pow(power / 2)
                v = s - s.sum(1, keepdim=True) * p
                gradients = iter(pulled_back(v.to(logits.dtype), logits, parameters, retain_graph=draw + 1 < DRAWS))
                squared = [sum(float(squared_norm(next(gradients))) for _ in group) for group in groups]
                contributions += torch.tensor(squared, dtype=torch.float64) * weights.cpu().double().square()
            shares += contributions / contributions.sum().clamp_min(1e-300)
    return shares / len(inputs)


def first_kept(layers: list[Layer], shares: Tensor, tolerance: float) -> tuple[int, float]:
    """The largest l such that the layers before it have at most ``tolerance`` of the share, and that share."""
    last = max(layer.index for layer in layers)
    by_index = torch.zeros(last + 1, dtype=torch.float64)
    for layer, share in zip(layers, shares, strict=True):
        by_index[layer.index] += share
    before = by_index.cumsum(0)  # before[l]: share of layers 1..l
    keep = next((index for index in range(last, 1, -1) if float(before[index - 1]) <= tolerance), 1)
    return keep, float(before[keep - 1])
