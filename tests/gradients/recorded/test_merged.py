"""Convolutions and BatchNorms differentiated as one, against each by itself and against autograd."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regrad.gradients import exact
from regrad.gradients.depths import Depth, Depths
from regrad.gradients.exact import ExactEngine
from regrad.gradients.layers import find_layers, layer_weights
from regrad.gradients.recorded import uses
from regrad.gradients.recorded.merged import MergedRule
from regrad.gradients.reference import ReferenceEngine
from regrad.network.copies import private_copy
from tests.networks import build, copies

COPIES, CLASSES = 12, 5


class Normed(nn.Module):
    """Convolutions of several kinds, each with a BatchNorm behind it, then a head."""

    def __init__(self, **first: object) -> None:
        super().__init__()
        self.a, self.norm_a = nn.Conv2d(3, 8, 3, **first), nn.BatchNorm2d(8)  # type: ignore[arg-type]
        self.b, self.norm_b = nn.Conv2d(8, 8, 2, groups=4, bias=False), nn.BatchNorm2d(8)
        self.c, self.norm_c = nn.Conv1d(8, 6, 2, stride=2), nn.BatchNorm1d(6)
        self.mixed, self.fc = nn.Linear(6, 6), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.behind(torch.tanh(self.norm_a(self.a(x))))

    def behind(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.norm_b(self.b(x))).flatten(2)
        x = torch.tanh(self.norm_c(self.c(x))).mean(2)
        return self.fc(torch.tanh(self.mixed(x)))


def made(network: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Seeded, in eval mode, with statistics that are not the initial ones."""
    torch.manual_seed(0)
    for module in network.to(dtype).modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
            if module.affine:
                nn.init.uniform_(module.weight, -1.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.3)
    return network.eval()


def engine_of(network: nn.Module, x: Tensor, copies: int = COPIES, depths: Depths | None = None) -> ExactEngine:
    own = private_copy(network)
    layers = find_layers(own, x[:, 0])
    return ExactEngine(own, layers, layer_weights(layers, 0.3), x[:, 0], copies, depths=depths)


def merged(engine: ExactEngine) -> list[str]:
    """Names of the convolutions that were."""
    names = {module: name for name, module in engine.network.named_modules()}
    return [names[item.module] for item in engine._watched if isinstance(item.rule, MergedRule)]


@pytest.mark.parametrize("worth_a_call", [0, 1 << 60], ids=["image by image", "all images"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "first",
    [{}, {"bias": False}, {"padding": 1, "stride": 2}, {"padding": 2, "dilation": 2, "padding_mode": "reflect"}],
)
def test_norms_are_those_of_the_reference(
    first: dict[str, object], layout: torch.memory_format, worth_a_call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uses, "_WORTH_A_CALL", worth_a_call)
    network, x = made(Normed(**first)), copies(number=COPIES)
    x = x.flatten(0, 1).to(memory_format=layout).unflatten(0, x.shape[:2])
    engine = engine_of(network, x)
    assert merged(engine) == ["a", "b", "c"]
    assert not [module for module in engine.network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    wanted = ReferenceEngine(private_copy(network), engine.layers, engine.weights, x[:, 0])(x)
    found = engine(x)
    torch.testing.assert_close(found.squared, wanted.squared, rtol=1e-9, atol=0)
    torch.testing.assert_close(found.logits, wanted.logits, rtol=1e-10, atol=1e-12)
    # Of every layer by itself: an error in one that weighs little would not show above.
    each = torch.eye(len(engine.layers), dtype=torch.float64)
    alone = ReferenceEngine(private_copy(network), engine.layers, each, x[:, 0])(x).squared
    torch.testing.assert_close(engine._of_layers(x, None, True)[0], alone, rtol=1e-9, atol=1e-18)


def test_a_network_in_float32_loses_no_digits() -> None:
    network, x = build("ResNet", torch.float32), copies(number=COPIES, dtype=torch.float32)
    engine = engine_of(network, x)
    assert len(merged(engine)) > 3
    double = private_copy(network).double()
    wanted = ReferenceEngine(double, engine.layers, engine.weights, x[:, 0].double())(x.double())
    torch.testing.assert_close(engine(x).squared, wanted.squared, rtol=1e-4, atol=0)


def test_parameters_of_a_layer_that_counts_in_part() -> None:
    network, x = made(Normed()), copies(number=COPIES)
    own = private_copy(network)
    layers = find_layers(own, x[:, 0])
    weights = torch.ones(1, len(layers), dtype=torch.float64)
    weights[:, : next(i for i, layer in enumerate(layers) if layer.name == "norm_b")] = 0  # its convolution does not
    engine = ExactEngine(own, layers, weights, x[:, 0], COPIES)
    assert merged(engine) == ["c"]
    wanted = ReferenceEngine(private_copy(network), layers, weights, x[:, 0])(x)
    torch.testing.assert_close(engine(x).squared, wanted.squared, rtol=1e-9, atol=0)


def test_classes_that_begin_at_the_norm_have_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uses, "_WORTH_A_CALL", 0)
    network, x = made(Normed()), copies(number=COPIES)
    whole = engine_of(network, x)
    place = next(i for i, layer in enumerate(whole.layers) if layer.name == "norm_b")
    depths = Depths((Depth(1, 0.0, 1.0), Depth(whole.layers[place].index, 0.1, 0.5)), (0.5,), 1.0)
    engine = engine_of(network, x, depths=depths)
    assert merged(engine) == ["a", "b", "c"]
    wanted, found = (each._of_layers(x, None, True)[0] for each in (whole, engine))
    torch.testing.assert_close(found[place:], wanted[place:], rtol=1e-9, atol=0)
    assert int((found[0] == 0).sum()) == len(x) * (CLASSES - 1)


def test_norms_without_parameters_of_their_own_stay() -> None:
    network = Normed()
    network.norm_a = nn.BatchNorm2d(8, affine=False)
    x = copies(number=COPIES)
    engine = engine_of(made(network), x)
    assert merged(engine) == ["b", "c"]


class Bare(Normed):
    """The first convolution's output is used without its BatchNorm too, if only a little."""

    def forward(self, x: Tensor) -> Tensor:
        z = self.a(x)
        return self.behind(torch.tanh(self.norm_a(z)) + 1e-9 * z)


class Twice(Normed):
    """The first convolution is called twice."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + F.pad(self.a(x).mean((2, 3)), (0, -3))


class Tied(Normed):
    """Two BatchNorms have one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_b.weight = self.norm_a.weight


class Hooked(Normed):
    """A forward hook of the network's own changes what a BatchNorm gives."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_a.register_forward_hook(lambda module, args, output: 2 * output)


class Zero(Normed):
    """A channel's weight is 0: its gradient does not follow from W' = 0."""


@pytest.mark.parametrize(
    ("kind", "names"),
    [(Bare, ["b", "c"]), (Twice, ["b", "c"]), (Tied, ["c"]), (Hooked, ["b", "c"]), (Zero, ["b", "c"])],
)
def test_what_is_used_otherwise_is_not_merged(kind: type[Normed], names: list[str]) -> None:
    network, x = made(kind()), copies(number=COPIES)
    if kind is Zero:
        with torch.no_grad():
            network.norm_a.weight[1] = 0  # type: ignore[union-attr,operator,index]
    engine = engine_of(network, x)
    assert merged(engine) == names
    wanted = ReferenceEngine(private_copy(network), engine.layers, engine.weights, x[:, 0])(x)
    torch.testing.assert_close(engine(x).squared, wanted.squared, rtol=1e-9, atol=0)


def test_where_the_gram_form_is_cheaper_there_are_no_products_to_derive_from() -> None:
    x = copies(number=1)
    wide = nn.Sequential(nn.Conv2d(3, 64, 15), nn.BatchNorm2d(64), nn.Tanh(), nn.Flatten(), nn.Linear(256, CLASSES))
    assert merged(engine_of(made(wide), x, 1)) == []
    assert merged(engine_of(made(wide), x, 400)) == ["0"]


def test_what_gives_other_numbers_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = made(Normed()), copies(number=COPIES)
    wanted = engine_of(network, x)(x)
    call = MergedRule.__call__
    monkeypatch.setattr(MergedRule, "__call__", lambda self, module, x, images: call(self, module, 2 * x, images))
    engine = engine_of(network, x)
    assert merged(engine) == []
    assert [name for name, module in engine.network.named_modules() if isinstance(module, nn.BatchNorm2d)]
    torch.testing.assert_close(engine(x).squared, wanted.squared, rtol=1e-9, atol=0)


def test_less_memory_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = made(Normed()), copies(number=COPIES)
    with_merged = engine_of(network, x).bytes_per_input
    monkeypatch.setattr(exact, "merge_norms", lambda network, watched, *rest: (list(watched), None))
    assert with_merged < engine_of(network, x).bytes_per_input
