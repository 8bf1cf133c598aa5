"""Closed forms behind which channels go their own way to the head, against autograd of every class."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regrad.gradients.exact import ExactEngine
from regrad.gradients.layers import find_layers, layer_weights
from regrad.gradients.recorded import channelwise
from regrad.gradients.recorded.channelwise import find_channelwise, pays, row_products, squares_of_targets
from regrad.gradients.reference import ReferenceEngine
from regrad.gradients.rules import Outer
from regrad.network.copies import private_copy
from regrad.network.head import find_head
from tests.networks import build, copies

CLASSES, WIDTH = 7, 10


class Pooled(nn.Module):
    """What most networks end with: a convolution (in ``groups``), BatchNorm, an activation, a sum, pooling, a head."""

    def __init__(self, groups: int = 1, size: int = 3, norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 3, stride=2, padding=1)
        self.conv = nn.Conv2d(WIDTH, WIDTH, size, padding=size // 2, groups=groups)
        self.norm, self.fc = norm(WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.fc(F.silu(self.norm(self.conv(x)) + x).mean((2, 3)))


class Turned(Pooled):
    """Its channels reach the head in another order."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(F.relu(self.stem(x))))
        return self.fc(F.silu(x).mean((2, 3)).flip(1))


class Dense(nn.Module):
    """Linear layers: the last but one is all that a unit of it is of."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3 * 16 * 16, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.fc = nn.Linear(WIDTH, CLASSES, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.gelu(self.second(torch.tanh(self.first(x.flatten(1))))))


class Twice(Pooled):
    """Its last convolution is called twice."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.fc(F.silu(self.norm(self.conv(x) + self.conv(x.flip(3)))).mean((2, 3)))


class Gated(Pooled):
    """A gate that is nearly shut for changes mixes the channels behind the convolution, a little."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(WIDTH, WIDTH)
        nn.init.normal_(self.gate.weight, 0, 1e-3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(F.relu(self.stem(x))))
        return self.fc((x * self.gate(x.mean((2, 3))).sigmoid()[..., None, None]).mean((2, 3)))


class Dead(Pooled):
    """Nothing of its convolution comes through, on what it was tried on."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.fc(self.norm(F.relu(self.conv(x) - 1000).flip(1) + x).mean((2, 3)))


CASES: dict[str, tuple[Callable[[], nn.Module], set[str]]] = {
    "pooled": (Pooled, {"conv", "norm"}),
    "in groups": (lambda: Pooled(groups=5), {"conv", "norm"}),
    "one pixel": (lambda: Pooled(size=1), {"conv", "norm"}),
    "channels mixed behind it": (lambda: Pooled(norm=lambda width: nn.GroupNorm(2, width)), {"norm"}),
    "in another order": (Turned, set()),
    "dense": (Dense, {"second"}),
    "called twice": (Twice, {"norm"}),
    "gated": (Gated, {"gate"}),
    "dead": (Dead, {"norm", "stem"}),
}


def _network(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    network = make().double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return network


@pytest.mark.parametrize("case", CASES)
def test_a_module_qualifies_by_what_it_is_to_the_heads_input(case: str) -> None:
    make, wanted = CASES[case]
    network, x = private_copy(_network(make)), copies(images=2, number=1)[:, 0]
    assert find_channelwise(network, find_head(network, x), x) == wanted
    assert find_channelwise(network, None, x) == set()
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("number", [1, 4])
@pytest.mark.parametrize("most", [1000, 0], ids=["by positions", "by rows"])
@pytest.mark.parametrize("case", CASES)
def test_norms_are_those_of_the_definition(case: str, most: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channelwise, "AS_MUCH", 1000)
    real = channelwise._by_positions if most else channelwise._by_rows
    taken: list[int] = []

    def chosen(factor: object, gradient: Tensor, images: int) -> Tensor:
        taken.append(1)
        return real(factor, gradient, images)  # type: ignore[arg-type]

    def products(factor: object, alone: object, gradient: Tensor, images: int) -> Tensor:
        if isinstance(alone, Outer):
            return chosen(factor if most else alone, gradient, images)
        return row_products(factor, alone, gradient, images)  # type: ignore[arg-type]

    monkeypatch.setattr(channelwise, "row_products", products)
    make, wanted = CASES[case]
    network = _network(make)
    x = copies(images=3, number=number)
    layers = find_layers(private_copy(network), x[:, 0])
    weights = layer_weights(layers, 0.3)
    own = private_copy(network)
    engine = ExactEngine(own, layers, weights, x[:, 0], copies=number)
    names = {
        name for name, module in own.named_modules() for i in engine._channelwise if engine._watched[i].module is module
    }
    assert names == wanted
    assert bool(taken) == any(name != "norm" for name in wanted)

    def targets(log_p: Tensor) -> Tensor:
        return torch.cat([log_p.exp()[:, None], torch.full_like(log_p, 1 / CLASSES)[:, None]], 1)

    found = engine(x, targets).squared
    reference = ReferenceEngine(private_copy(network), layers, weights)(x, targets).squared
    torch.testing.assert_close(found, reference, rtol=1e-9, atol=1e-12 * float(reference.max()))
    alone = engine(x, targets, classes=False).squared
    torch.testing.assert_close(alone, reference[..., CLASSES:], rtol=1e-9, atol=1e-12 * float(reference.max()))


def test_a_class_that_is_sure_loses_no_digits() -> None:
    """Of p = 1 - 1e-9 the own gradient is a billionth of the others'."""
    torch.manual_seed(0)
    weight = torch.randn(CLASSES, WIDTH, dtype=torch.float64)
    logits = torch.zeros(2, 3, CLASSES, dtype=torch.float64)
    logits[..., 2] = 23 + torch.rand(2, 3, dtype=torch.float64)
    p = logits.softmax(2)
    rows = torch.rand(2, 3, WIDTH, 5, dtype=torch.float64)
    products = torch.einsum("biok,bjok->bijo", rows, rows)
    units = torch.eye(CLASSES, dtype=torch.float64).expand(2, -1, -1)
    q_less_p = units[:, :, None] - p[:, None]
    rest = torch.cat([p[..., :2], p[..., 3:]], 2).sum(2)
    q_less_p[:, 2, :, 2] = rest  # 1 - p without the difference
    u = q_less_p @ weight
    gradients = torch.einsum("btio,biok->btok", u, rows) / 3
    found = squares_of_targets(products, weight, p, None)
    torch.testing.assert_close(found, gradients.square().sum((2, 3)), rtol=1e-6, atol=0)
    torch.testing.assert_close(squares_of_targets(products, weight, p, units), found, rtol=1e-6, atol=0)


def test_few_targets_and_many_positions_take_passes() -> None:
    network, x = _network(Pooled), copies(images=2, number=2)
    layers = find_layers(private_copy(network), x[:, 0])

    def found(number: int, targets: int | None) -> set[int]:
        engine = ExactEngine(private_copy(network), layers, layer_weights(layers, 0.3), x[:, 0], number, targets)
        return engine._channelwise

    assert len(found(2, None)) == 2
    assert len(found(2, 3)) == 2
    assert found(2, 2) == set()
    assert len(found(3, None)) == 1  # 3 copies of 8x8 positions, twice the 90 inputs of a position
    assert pays((1, 64, 90, WIDTH), WIDTH, 2)
    assert not pays((1, 64, 90, WIDTH), WIDTH, 3)
    assert not pays((1, 64, 90, WIDTH + 1), WIDTH, 2)


def test_what_disagrees_with_backward_passes_is_not_relied_upon(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = _network(Pooled), copies(images=2, number=2)
    layers = find_layers(private_copy(network), x[:, 0])
    monkeypatch.setattr(channelwise, "row_products", lambda *args: 1.01 * row_products(*args))
    engine = ExactEngine(private_copy(network), layers, layer_weights(layers, 0.3), x[:, 0], 2)
    assert engine._channelwise == set()
    reference = ReferenceEngine(private_copy(network), layers, layer_weights(layers, 0.3))(x).squared
    torch.testing.assert_close(engine(x).squared, reference, rtol=1e-9, atol=0)


def test_real_networks_have_such_layers() -> None:
    x = copies(images=2, number=1)[:, 0]
    for name, wanted in {
        "ResNet": {"layer4.0.conv2", "layer4.0.bn2"},
        "BatchNorm CNN": {"conv2", "bn2"},
        "tokens": set(),
        "timm ViT": set(),
    }.items():
        network = private_copy(build(name))
        found = find_channelwise(network, find_head(network, x), x)
        assert found - {"layer4.0.downsample.0", "layer4.0.downsample.1"} == wanted
