"""The sketch engine against the definition: each draw exactly, its mean in distribution, and what a user relies on."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor, nn

from regrad import Classifier, Scorer
from regrad.errors import UsageError
from regrad.gradients.exact import ExactEngine
from regrad.gradients.layers import find_layers, layer_weights
from regrad.gradients.reference import ReferenceEngine
from regrad.gradients.sketching import directions
from regrad.gradients.sketching.directions import corrected_root, root_bias
from regrad.gradients.sketching.sketch import SketchEngine
from regrad.network.copies import private_copy
from regrad.reading.decode import to_tensor
from regrad.reading.formats import fetch_images
from tests.data import data_path
from tests.networks import NARROW, NETWORKS, build, copies

LAMBDAS = (0.0, 0.3, math.inf)
SHARED = pytest.mark.parametrize("rows", [1, 10**9], ids=["shared signs", "independent"])


def _engine(network: nn.Module, x: Tensor, decays: tuple[float, ...] = LAMBDAS, **settings: Any) -> SketchEngine:
    layers = find_layers(private_copy(network), x[:, 0])
    weights = torch.stack([layer_weights(layers, decay) for decay in decays])
    return SketchEngine(private_copy(network), layers, weights, x[:, 0], **settings)


def _reference(network: nn.Module, x: Tensor, decays: tuple[float, ...] = LAMBDAS) -> Tensor:
    layers = find_layers(private_copy(network), x[:, 0])
    weights = torch.stack([layer_weights(layers, decay) for decay in decays])
    return ReferenceEngine(private_copy(network), layers, weights)(x).squared


def _closed_form(network: nn.Module, x: Tensor) -> Tensor:
    """||g_c||^2 of the last layer, (B, C)."""
    return _reference(network, x, (math.inf,))[0]


@SHARED
@pytest.mark.parametrize("name", NARROW)
def test_every_draw_is_a_product_with_the_gradient(name: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """(a v_j . g_c)^2 with gradients from reverse mode, and the exact square of the last layer beside it."""
    monkeypatch.setattr(directions, "SHARED_ROWS", rows)
    network, x = build(name), copies(images=2, number=3)
    engine = _engine(network, x, (0.3,), directions=2)
    got = engine(x).draws
    assert got is not None
    clone = private_copy(network).requires_grad_(True)
    parameters = dict(clone.named_parameters(remove_duplicate=False))
    layers = find_layers(private_copy(network), x[:, 0])
    weights = layer_weights(layers, 0.3)
    exact = _closed_form(network, x)
    moves: list[dict[str, Tensor]] = [{}, {}]  # a v_j by parameter
    for block in engine._blocks:
        for j, move in enumerate(moves):
            moved = block.moved({key: draw[j] for key, draw in block.draws.items()})
            for key, value in block.values.items():
                name = f"{block.module}.{key}".lstrip(".")
                move[name] = weights[block.place] * (moved[name] - value)
    own = {name: parameters[name] for name in moves[0]}
    for b, image in enumerate(x):
        log_p = clone(image).log_softmax(1).mean(0)
        for c in range(len(log_p)):
            gradients = torch.autograd.grad(log_p[c], list(own.values()), retain_graph=True)
            products = [[(g * move[name]).sum() for name, g in zip(own, gradients, strict=True)] for move in moves]
            wanted = torch.tensor(products, dtype=torch.float64).sum(1)
            torch.testing.assert_close(got[:, 0, b, c], exact[b, c] + wanted.square(), rtol=1e-8, atol=1e-12)


@SHARED
@pytest.mark.parametrize("name", NARROW)
def test_squares_have_the_right_mean(name: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within five standard errors over seeds, for the mean over images and classes, which varies least."""
    monkeypatch.setattr(directions, "SHARED_ROWS", rows)
    network, x = build(name), copies(images=2, number=2)
    seeds, k = 12, 6
    layers = find_layers(private_copy(network), x[:, 0])
    weights = layer_weights(layers, 0.3)[None]
    engines = (SketchEngine(private_copy(network), layers, weights, x[:, 0], k, seed) for seed in range(seeds))
    found = torch.stack([engine(x).squared[0] for engine in engines])
    wanted = _reference(network, x, (0.3,))[0]
    ratios = (found / wanted).mean((1, 2))
    assert abs(float(ratios.mean()) - 1) < 5 * float(ratios.std()) / seeds**0.5


def test_wide_layers_share_signs_and_take_the_shortcut() -> None:
    network, x = build("ResNet"), copies(images=2, number=2)
    engine = _engine(network, x, (0.3,), directions=2)
    shared = {block.module for block in engine._blocks if block.signs}
    assert shared == {block.module for block in engine._blocks if block.module.startswith("layer4")}
    assert set(engine._mode.shortcuts) == shared


def test_a_weight_used_once_more_by_a_function_takes_no_shortcut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directions, "SHARED_ROWS", 1)
    engine = _engine(build("layer used twice"), copies(), (0.3,), directions=2)
    assert set(engine._mode.shortcuts) == {"conv", "stem"}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_last_layer_alone_is_exact(name: str) -> None:
    network, x = build(name), copies()
    found = _engine(network, x, (math.inf,), directions=2)(x)
    wanted = _closed_form(network, x)
    torch.testing.assert_close(found.squared[0], wanted, rtol=1e-9, atol=0)
    torch.testing.assert_close(found.norms[0], wanted.sqrt(), rtol=1e-9, atol=0)


def test_weightings_may_leave_out_different_layers() -> None:
    network, x = build("BatchNorm CNN"), copies()
    together = _engine(network, x, directions=4)(x).squared
    alone = torch.stack([_engine(network, x, (decay,), directions=4)(x).squared[0] for decay in LAMBDAS])
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", ["ResNet", "torchvision ViT"])
def test_copies_may_go_in_pieces(name: str) -> None:
    network, x = build(name), copies(images=2, number=5)
    engine = _engine(network, x, (0.3, math.inf), directions=2)
    together = engine(x)
    engine.most_inputs = 3
    torch.testing.assert_close(engine(x).squared, together.squared, rtol=1e-9, atol=0)


def test_a_seed_fixes_the_directions() -> None:
    network, x = build("timm ViT"), copies()
    first, same, other = (_engine(network, x, (0.3,), directions=4, seed=seed)(x).squared for seed in (0, 0, 1))
    torch.testing.assert_close(same, first, rtol=0, atol=0)
    assert float(((other - first).abs() / first).min()) > 0
    assert float(((other - first).abs() / first).mean()) > 0.01


def test_further_targets_are_expected_gradients() -> None:
    network, x = build("BatchNorm CNN"), copies()
    layers = find_layers(private_copy(network), x[:, 0])
    weights = layer_weights(layers, 0.3)

    def targets(log_p: Tensor) -> Tensor:
        one_hot = F.one_hot(torch.tensor([2]), log_p.shape[1]).to(log_p).expand_as(log_p)
        return torch.stack([one_hot, log_p.exp()], 1)

    settings = {"directions": 1000, "seed": 2}
    got = SketchEngine(private_copy(network), layers, weights, x[:, 0], **settings)(x, targets).squared[0]
    torch.testing.assert_close(got[:, 5], got[:, 2], rtol=1e-9, atol=0)
    wanted = ExactEngine(private_copy(network), layers, weights, x[:, 0])(x, targets).squared[0, :, 6]
    torch.testing.assert_close(got[:, 6], wanted, rtol=5 * math.sqrt(2 / 1000), atol=0)

    alone = SketchEngine(private_copy(network), layers, weights, x[:, 0], **settings)(x, targets, classes=False)
    torch.testing.assert_close(alone.squared[0], got[:, 5:], rtol=1e-9, atol=1e-20)


# -- the bias of the root ----------------------------------------------------------------------------------------------


def test_the_engine_corrects_its_root() -> None:
    """Groups of four draws of one engine: their corrected roots have the right mean, the plain ones have not."""
    network, x = build("unknown layer"), copies(images=2, number=2)
    exact = _closed_form(network, x)
    draws = _engine(network, x, (0.0,), directions=4000)(x).draws
    assert draws is not None
    sketched = (draws[:, 0] - exact).unflatten(0, (1000, 4)).mean(1)
    wanted = _reference(network, x, (0.0,))[0].sqrt()
    norms, plain = corrected_root(exact, sketched, 4), (exact + sketched).sqrt()
    error = 5 * norms.std(0) / 1000**0.5 + (1 / 4) ** 2 * (1 - exact / wanted.square()) ** 2 * wanted
    assert bool(((norms.mean(0) - wanted).abs() < error).all())
    assert float((plain.mean(0) / wanted - 1).mean()) < float((norms.mean(0) / wanted - 1).mean())


def test_a_head_that_is_not_linear_is_sketched_too() -> None:
    class Squashed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = build("BatchNorm CNN")

        def forward(self, x: Tensor) -> Tensor:
            return 3 * torch.tanh(self.inner(x))

    x = copies(images=2, number=3)
    found = _engine(Squashed(), x, (0.3,), directions=1000)(x)
    torch.testing.assert_close(found.norms, found.squared.sqrt() / root_bias(1000), rtol=1e-12, atol=0)
    torch.testing.assert_close(found.squared, _reference(Squashed(), x, (0.3,)), rtol=5 * math.sqrt(2 / 1000), atol=0)


# -- networks that are hard to differentiate ---------------------------------------------------------------------------


class Doubled(torch.autograd.Function):
    """2 x with a forward derivative, for one direction at a time."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> Tensor:
        return 2 * d

    @staticmethod
    def jvp(ctx: Any, t: Tensor) -> Tensor:
        return 2 * t


class NoForwardMode(torch.autograd.Function):
    """x, with a derivative backwards only."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> Tensor:
        return d


class Applies(nn.Module):
    """A convolution, the given function, a look into the values, a write in place, and a Linear head."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)
        self.function = function
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        y = self.function(torch.tanh(self.conv(x)))
        features = x.new_zeros(len(x), 4)
        features[:, :] = y.mean((2, 3)) if float(y.detach().sum()) < math.inf else y.amax((2, 3))
        return self.fc(features)


def test_values_may_be_looked_at_and_written_in_place() -> None:
    network, x = Applies(torch.sin), copies()
    engine = _engine(network, x, (0.3,), directions=1000)
    assert engine._mode.together
    torch.testing.assert_close(engine(x).squared, _reference(network, x, (0.3,)), rtol=5 * math.sqrt(2 / 1000), atol=0)


def test_directions_go_one_after_another_where_they_must() -> None:
    network, x = Applies(Doubled.apply), copies()
    engine = _engine(network, x, (0.3,), directions=1000)
    assert not engine._mode.together
    torch.testing.assert_close(engine(x).squared, _reference(network, x, (0.3,)), rtol=5 * math.sqrt(2 / 1000), atol=0)


def test_a_function_without_forward_mode_is_refused() -> None:
    with pytest.raises(UsageError, match=r"engine sketch: Applies has no forward-mode derivative .*; use exact"):
        _engine(Applies(NoForwardMode.apply), copies())


# -- a trained network -------------------------------------------------------------------------------------------------


@pytest.mark.data
def test_ranks_as_the_exact_engine_does_on_a_trained_network() -> None:
    """DenseNet-100 on CIFAR-100: the order, the size of the error, and the size that it claims to have."""
    classifier = Classifier.load(
        "regrad.networks:densenet100_cifar100", weights=str(data_path("weights/densenet100-cifar100.safetensors"))
    )
    contents = dict(fetch_images(str(data_path("cifar100-test.parquet")), dict.fromkeys(range(16), "")))
    images = torch.stack([to_tensor(content, classifier) for content in contents.values()])
    ids = [str(row) for row in contents]
    exact = Scorer(classifier, samples=1)
    wanted = exact(images, ids)["regrad"]
    sketch = Scorer(classifier, samples=1, engine="sketch", standard_errors=True)
    assert sketch.plan["first_layer"] == exact.plan["first_layer"] > 1
    found = sketch(images, ids)
    assert spearmanr(found["regrad"], wanted).statistic >= 0.99
    error = (found["regrad"] - wanted).abs()
    assert float((error / wanted).median()) < 0.05
    assert 0.3 < float((error / found["regrad_se"]).square().mean().sqrt()) < 3
