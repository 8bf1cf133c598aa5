"""Where the network is cut: shares of the gradient, estimated on probes."""

from __future__ import annotations

import pytest
import torch

from regrad.gradients.cut import first_kept, layer_shares
from regrad.gradients.layers import find_layers, layer_weights
from regrad.gradients.reference import ReferenceEngine
from regrad.network.copies import private_copy
from tests.networks import build, copies


@pytest.mark.parametrize("power", [1.0, 0.0])
def test_shares_estimate_the_layers_part_of_the_weighted_trace(power: float) -> None:
    network = private_copy(build("BatchNorm CNN"))
    x = copies(images=30)[:, 0]
    layers = find_layers(network, x[:3])
    weights = layer_weights(layers, 0.3)
    engine = ReferenceEngine(private_copy(network), layers, torch.diag(weights))
    found = engine(x[:, None])
    traces = torch.einsum("bc,lbc->bl", found.logits[:, 0].softmax(1) ** power, found.squared)
    wanted = (traces / traces.sum(1, keepdim=True)).mean(0)
    got = layer_shares(network, layers, weights, x, power)
    torch.testing.assert_close(got.sum(), torch.tensor(1.0, dtype=torch.float64))
    torch.testing.assert_close(got, wanted, rtol=0.25, atol=0.005)


def test_the_cut_leaves_out_at_most_the_tolerance() -> None:
    network = private_copy(build("BatchNorm CNN"))
    layers = find_layers(network, copies()[:, 0])
    shares = torch.tensor([0.01, 0.02, 0.07, 0.3, 0.6], dtype=torch.float64)
    cases = {0.0: (1, 0.0), 0.01: (2, 0.01), 0.029: (2, 0.01), 0.04: (3, 0.03), 0.999: (5, 0.4)}
    for tolerance, (index, left_out) in cases.items():
        first, left = first_kept(layers, shares, tolerance)
        assert first == index
        assert abs(left - left_out) < 1e-12
