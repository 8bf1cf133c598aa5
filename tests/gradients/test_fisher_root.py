"""sqrt(p_c) g_c is column c of the root of the per-sample Gauss-Newton matrix, which BackPACK computes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from regrad.gradients.exact import ExactEngine
from regrad.gradients.layers import find_layers
from regrad.network.copies import private_copy

backpack = pytest.importorskip("backpack")


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 9, 5),
    )
    for module in network:
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    return network.double().eval()


def _root_norms(network: nn.Sequential, x: Tensor) -> Tensor:
    """||column c of the root|| squared for every image and class, by BackPACK: (B, C)."""
    extended, loss = backpack.extend(network), backpack.extend(nn.CrossEntropyLoss(reduction="sum"))
    with backpack.backpack(backpack.extensions.SqrtGGNExact()):
        loss(extended(x), torch.zeros(len(x), dtype=torch.long)).backward()
    return sum(p.sqrt_ggn_exact.flatten(2).square().sum(2) for p in network.parameters()).T


def test_columns_and_trace_of_the_fisher_root() -> None:
    network = _network()
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    layers = find_layers(private_copy(network), x)
    found = ExactEngine(private_copy(network), layers, torch.ones(len(layers)), x)(x[:, None])
    p = found.logits[:, 0].softmax(1)
    columns = p * found.squared[0]
    wanted = _root_norms(network, x)
    torch.testing.assert_close(columns, wanted, rtol=1e-9, atol=1e-20)
    torch.testing.assert_close(columns.sum(1), wanted.sum(1), rtol=1e-9, atol=0)  # the matrix's trace
