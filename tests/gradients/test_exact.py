"""The exact engine against the definition: float64 autograd, one image, one class at a time."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from regrad.gradients import rules
from regrad.gradients.exact import ExactEngine
from regrad.gradients.layers import find_layers, layer_weights
from regrad.gradients.reference import ReferenceEngine
from regrad.network.copies import private_copy
from regrad.network.operations import Operations
from tests.networks import NETWORKS, WITHOUT_RULE, build, copies

LAMBDAS = (0.0, 0.3, math.inf)


def _both(name: str, number: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    network = build(name)
    x = copies(number=number)
    layers = find_layers(private_copy(network), x[:, 0])
    weights = torch.stack([layer_weights(layers, decay) for decay in LAMBDAS])
    wanted = ReferenceEngine(private_copy(network), layers, weights)(x).squared
    engine = ExactEngine(private_copy(network.to(dtype)), layers, weights, x[:, 0].to(dtype))
    return engine(x.to(dtype)).squared, wanted


@pytest.mark.parametrize("number", [1, 4], ids=["clean", "smoothed"])
@pytest.mark.parametrize("name", NETWORKS)
def test_equals_the_reference_in_float64(name: str, number: int) -> None:
    got, wanted = _both(name, number, torch.float64)
    assert got.shape == wanted.shape == (len(LAMBDAS), 3, 5)
    torch.testing.assert_close(got.sqrt(), wanted.sqrt(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("number", [1, 4], ids=["clean", "smoothed"])
@pytest.mark.parametrize("name", NETWORKS)
def test_equals_the_reference_in_float32(name: str, number: int) -> None:
    got, wanted = _both(name, number, torch.float32)
    torch.testing.assert_close(got.sqrt(), wanted.sqrt(), rtol=1e-4, atol=0)


def test_further_targets_are_expected_gradients() -> None:
    """The norm for a distribution q is that of sum_c q_c g_c, from gradients that autograd makes."""
    network = build("BatchNorm CNN")
    x = copies()
    layers = find_layers(private_copy(network), x[:, 0])
    weights = layer_weights(layers, 0.3)
    uniform = torch.full((5,), 0.2, dtype=torch.float64)
    engine = ExactEngine(private_copy(network), layers, weights, x[:, 0])
    got = engine(x, targets=lambda log_p: torch.stack([uniform.expand_as(log_p), log_p.exp()], 1)).squared[0, :, 5:]
    clone = private_copy(network).requires_grad_(True)
    scale = {name: weight for layer, weight in zip(layers, weights, strict=True) for name in [layer.name]}
    for b, image in enumerate(x):
        log_p = clone(image).log_softmax(1)
        for e, q in enumerate([uniform, log_p[0].detach().exp()]):
            gradients = torch.autograd.grad((q * log_p.mean(0)).sum(), list(clone.parameters()), retain_graph=True)
            wanted = sum(
                (scale[name.rpartition(".")[0]] * gradient).square().sum()
                for (name, _), gradient in zip(clone.named_parameters(), gradients, strict=True)
            )
            torch.testing.assert_close(got[b, e], wanted, rtol=1e-9, atol=1e-20)


@pytest.mark.parametrize("name", ["BatchNorm CNN", "unknown layer"])
def test_targets_alone_are_those_that_stand_beside_the_classes(name: str) -> None:
    network, x = build(name), copies()
    layers = find_layers(private_copy(network), x[:, 0])
    weights = torch.ones(len(layers))
    exact = ExactEngine(private_copy(network), layers, weights, x[:, 0], targets=2)
    for engine in (exact, ReferenceEngine(private_copy(network), layers, weights)):
        alone, beside = engine(x, two_targets, classes=False), engine(x, two_targets)
        assert alone.squared.shape == (1, 3, 2)
        torch.testing.assert_close(alone.squared, beside.squared[..., 5:], rtol=1e-9, atol=1e-20)
        torch.testing.assert_close(alone.logits, beside.logits, rtol=0, atol=0)


def two_targets(log_p: torch.Tensor) -> torch.Tensor:
    """The uniform distribution, and one that has half of its weight on the first class."""
    uniform = torch.full_like(log_p, 1 / log_p.shape[1])
    return torch.stack([uniform, (uniform + torch.eye(log_p.shape[1]).to(log_p)[0]) / 2], 1)


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_without_a_rule_are_those_that_no_rule_knows(name: str) -> None:
    network = private_copy(build(name))
    x = copies()[:, 0]
    layers = find_layers(network, x)
    assert set(ExactEngine(network, layers, torch.ones(len(layers)), x).without_rule) == WITHOUT_RULE[name]


def test_a_vit_without_its_first_layers_needs_no_fallback() -> None:
    network = private_copy(build("timm ViT"))
    x = copies()[:, 0]
    layers = find_layers(network, x)
    weights = torch.tensor([float(layer.index > 1) for layer in layers])  # layer 1 owns class token and positions
    assert ExactEngine(network, layers, weights, x).without_rule == ()


def test_a_rule_that_disagrees_with_autograd_is_told_and_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scores stay right, and the plan says what it costs."""

    def doubled(module: nn.Linear, x: torch.Tensor, images: int) -> dict[str, Any]:
        return rules.linear(module, 2 * x, images)

    monkeypatch.setitem(rules.RULES, nn.Linear, doubled)
    network, x = build("unknown layer"), copies()
    layers = find_layers(private_copy(network), x[:, 0])
    weights = torch.ones(1, len(layers))
    engine = ExactEngine(private_copy(network), layers, weights, x[:, 0])
    assert set(engine.without_rule) == {*WITHOUT_RULE["unknown layer"], "wave.inner.weight", "fc.weight"}
    wanted = ReferenceEngine(private_copy(network), layers, weights)(x).squared
    torch.testing.assert_close(engine(x).squared, wanted, rtol=1e-9, atol=0)


def test_left_out_layers_build_no_graph() -> None:
    network = private_copy(build("ResNet"))
    x = copies()
    layers = find_layers(network, x[:, 0])
    engine = ExactEngine(network, layers, layer_weights(layers, math.inf), x[:, 0])
    seen = []
    network.layer4.register_forward_hook(lambda module, args, output: seen.append(output.requires_grad))
    engine(x)
    assert seen == [False]


def test_an_extra_convolution_by_function_is_found_by_the_self_check() -> None:
    class Twice(nn.Conv2d):
        """Uses its weight as its type does, and once more."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + 0.5 * torch.nn.functional.conv2d(x * x, self.weight, None, padding=1)

    torch.manual_seed(0)
    network = nn.Sequential(Twice(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 16 * 16, 5)).double().eval()
    x = copies()
    layers = find_layers(private_copy(network), x[:, 0])
    weights = torch.ones(1, len(layers))
    got = ExactEngine(private_copy(network), layers, weights, x[:, 0])(x).squared
    torch.testing.assert_close(
        got, ReferenceEngine(private_copy(network), layers, weights)(x).squared, rtol=1e-9, atol=0
    )


class Counted(Operations):
    """Of what makes new numbers; a view launches nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def test_a_class_costs_few_operations_a_parameter() -> None:
    """On a GPU each is a launch: about four for a parameter, the backward pass included, and few for all together."""
    network, x = build("ResNet"), copies(images=2, number=2)
    layers = find_layers(private_copy(network), x[:, 0])
    engine = ExactEngine(private_copy(network), layers, layer_weights(layers, 0.3), x[:, 0])
    counts = []
    for targets in (2, 12):
        cotangents = torch.eye(targets, build("ResNet")(x[0]).shape[1], dtype=x.dtype).repeat(len(x), 1, 1)
        with Counted() as counted:
            engine(x, lambda log_p, q=cotangents: q, classes=False)
        counts.append(counted.count)
    assert (counts[1] - counts[0]) / 10 <= 5 * sum(len(layer.parameters) for layer in layers)
