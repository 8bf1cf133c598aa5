"""The definition against a second one: torch.func, all classes of all layers in one Jacobian."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, jacrev

from regrad.gradients.layers import find_layers, layer_weights
from regrad.gradients.reference import ReferenceEngine
from regrad.network.copies import private_copy
from tests.networks import build, copies


@pytest.mark.parametrize("name", ["BatchNorm CNN", "unknown layer"])
def test_norms_are_those_of_the_jacobian_of_the_mean_log_probability(name: str) -> None:
    network, x = private_copy(build(name)), copies()
    layers = find_layers(network, x[:, 0])
    weights = torch.stack([layer_weights(layers, decay) for decay in (0.0, 0.3)])
    norms = ReferenceEngine(private_copy(network), layers, weights)(x)
    parameters = {f"{layer.name}.{own}": place for place, layer in enumerate(layers) for own in layer.parameters}
    values = dict(network.named_parameters())

    def log_p(counted: dict[str, Tensor], image: Tensor) -> Tensor:
        return functional_call(network, values | counted, (image,)).log_softmax(1).mean(0)

    for b, image in enumerate(x):
        blocks = jacrev(log_p)({name: values[name] for name in parameters}, image)
        for s, row in enumerate(weights):
            wanted = sum(
                row[parameters[name]] ** 2 * block.flatten(1).square().sum(1) for name, block in blocks.items()
            )
            torch.testing.assert_close(norms.squared[s, b], wanted, rtol=1e-9, atol=0)
        torch.testing.assert_close(norms.logits[b], network(image), rtol=1e-12, atol=0)


def test_some_classes_and_targets_are_those_of_all() -> None:
    network, x = private_copy(build("BatchNorm CNN")), copies()
    layers = find_layers(network, x[:, 0])
    engine = ReferenceEngine(network, layers, layer_weights(layers, 0.3))

    def second(log_p: Tensor) -> Tensor:
        return torch.eye(5).to(log_p)[1].expand_as(log_p)[:, None]

    whole = engine(x, second).squared[0]
    some = engine(x, classes=torch.tensor([[4, 0], [0, 1], [2, 2]])).squared[0]
    assert some.tolist() == [[whole[b, c].item() for c in pair] for b, pair in enumerate([[4, 0], [0, 1], [2, 2]])]
    torch.testing.assert_close(whole[:, 5], whole[:, 1], rtol=1e-12, atol=0)
    torch.testing.assert_close(engine(x, second, classes=False).squared[0], whole[:, 5:], rtol=1e-12, atol=0)


def test_parameters_are_left_as_they_were() -> None:
    network, x = private_copy(build("BatchNorm CNN")), copies()
    layers = find_layers(network, x[:, 0])
    ReferenceEngine(network, layers, layer_weights(layers, 0.3))(x)
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in network.parameters())
