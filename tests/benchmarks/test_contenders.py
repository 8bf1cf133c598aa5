"""Who is timed: every one that can be built computes what it says, beside autograd in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from regrad.benchmarks.contenders import CONTENDERS, forward, functional, one_target, reference
from regrad.gradients.layers import find_layers, layer_weights
from regrad.network.copies import private_copy
from tests.shards import build

SAMPLES = 2
COPIES = torch.rand(2, SAMPLES + 1, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network() -> nn.Module:
    return build()[0].eval()


def squared_norms(network: nn.Module, copies: Tensor, decay: float) -> Tensor:
    """||a g_c||^2 by autograd, float64 (B, C)."""
    layers = find_layers(private_copy(network), copies[:, 0])
    network = private_copy(network).double().requires_grad_(True)
    modules = dict(network.named_modules())
    scales = [
        a for layer, a in zip(layers, layer_weights(layers, decay).tolist(), strict=True) for _ in layer.parameters
    ]
    parameters = [getattr(modules[layer.name], key) for layer in layers for key in layer.parameters]
    rows = []
    for image in copies.double():
        log_p = network(image).log_softmax(1).mean(0)
        norms = []
        for value in log_p:
            gradients = torch.autograd.grad(value, parameters, retain_graph=True)
            norms.append(sum(a**2 * g.square().sum() for a, g in zip(scales, gradients, strict=True)))
        rows.append(torch.stack(norms))  # type: ignore[arg-type]
    return torch.stack(rows).detach()


def test_forward_is_the_network_on_all_copies(network: nn.Module) -> None:
    with torch.no_grad():
        wanted = network(COPIES.flatten(0, 1))
    torch.testing.assert_close(forward(network, COPIES[:, 0], SAMPLES)(COPIES), wanted)


def test_the_definition_and_torch_func_are_what_autograd_gives(network: nn.Module) -> None:
    got: Any = reference(network, COPIES[:, 0], SAMPLES)(COPIES)
    torch.testing.assert_close(got.squared[0], squared_norms(network, COPIES, 0.3), rtol=1e-4, atol=1e-9)
    plain = torch.stack(functional(network, COPIES[:, 0], SAMPLES)(COPIES)).double()
    torch.testing.assert_close(plain, squared_norms(network, COPIES, 0.0), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("name", ["exact 2e-3", "exact 1e-3", "exact 2e-4", "exact, all layers"])
def test_our_engines_hold_their_tolerance(network: nn.Module, name: str) -> None:
    (contender,) = (item for item in CONTENDERS if item.name == name)
    run = contender.make(network, COPIES[:, 0], SAMPLES)
    (norms,) = run(COPIES)[0].values()
    decay = 0.0 if "all layers" in name else 0.3
    roots = norms.logits[:, 0].softmax(1).sqrt()  # that REGrad weighs the classes by
    wanted = (roots * squared_norms(network, COPIES, decay).sqrt()).sum(1)
    got = (roots * norms.norms[0]).sum(1)
    assert float(((got - wanted).abs() / wanted).max()) < 2e-3
    assert float(run.error(COPIES).max()) < 2e-3  # type: ignore[attr-defined]


def test_gradnorm_alone_sees_the_clean_image_alone(network: nn.Module) -> None:
    run = one_target(network, COPIES[:, 0], SAMPLES)
    (norms,) = run(COPIES)[0].values()
    changed = COPIES.clone()
    changed[:, 1:] = 0
    (again,) = run(changed)[0].values()
    torch.testing.assert_close(norms.squared, again.squared)


def test_names_are_unique() -> None:
    assert len({contender.name for contender in CONTENDERS}) == len(CONTENDERS)
