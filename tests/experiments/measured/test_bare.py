"""The scores of the last bias, against the library's own gradients of a network that has no other parameter."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from regrad import Classifier, Scorer
from regrad.experiments.measured import bare
from regrad.scores import Inputs


class OnlyBias(nn.Module):
    """Fixed features, and a bias as the one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 5).double()
        self.head.weight = nn.Parameter(torch.zeros(5, 12, dtype=torch.float64))
        self.register_buffer("fixed", torch.randn(5, 12, generator=torch.Generator().manual_seed(0)).double())

    def forward(self, x: Tensor) -> Tensor:
        # A bias reaches the logits unchanged: the weight's part of the gradient is taken away by an input of zeros.
        return self.head(torch.zeros_like(x.flatten(1))) + 3 * x.flatten(1) @ self.fixed.T


def test_they_are_the_scores_of_a_network_whose_bias_alone_has_a_gradient() -> None:
    x = torch.rand(6, 3, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    network = OnlyBias().eval()
    scorer = Scorer(
        Classifier(network, 2, mean=0.0, std=1.0), ("regrad_plain", "exgrad"), tolerance=0, engine="reference"
    )
    found = scorer(x, list("abcdef"))
    with torch.no_grad():
        inputs = Inputs(network(x))
    torch.testing.assert_close(bare.regrad_bias(inputs), found["regrad_plain"], rtol=1e-9, atol=0)
    torch.testing.assert_close(bare.exgrad_bias(inputs), found["exgrad"], rtol=1e-9, atol=0)
