"""Targets that wait for each other, and what is formed of them together."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from regrad.gradients.depths import Depth, Depths, Order
from regrad.gradients.exact import ExactEngine
from regrad.gradients.layers import find_layers, layer_weights
from regrad.gradients.recorded import uses
from regrad.gradients.recorded.differentiated import Differentiated, Squares, Waiting
from regrad.network.copies import private_copy
from tests.networks import build, copies

CLASSES = 5


class Counting:
    """In place of the squares: which targets came together, and from where on each image counts."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, list[list[int]] | None]] = []

    def __call__(self, targets: list[Differentiated], first: Tensor | None) -> Tensor:
        self.calls.append((len(targets), None if first is None else first.tolist()))
        return torch.tensor([float(target.outputs[0]) for target in targets])[:, None, None].expand(-1, 2, 3)  # type: ignore[arg-type]


def _target(number: float) -> Differentiated:
    return Differentiated({"weight"}, {0: torch.tensor(number)}, {})


def test_so_many_at_the_most_are_formed_together() -> None:
    squares, per_layer = Counting(), torch.zeros(3, 2, 6)
    waiting = Waiting(squares, Order(torch.arange(5).expand(2, 5)), per_layer, 2)  # type: ignore[arg-type]
    for place in (0, 1, 3, 4, 5):
        waiting.add(place, _target(place + 1))
    assert [count for count, _ in squares.calls] == [2, 2]
    waiting.form()
    waiting.form()  # nothing waits any more
    assert squares.calls == [(2, None), (2, None), (1, None)]
    assert per_layer[0, 0].tolist() == [1, 2, 0, 4, 5, 6]


def test_every_image_counts_from_where_its_own_class_does() -> None:
    depths = Depths((Depth(2, 0.0, 1.0), Depth(7, 0.1, 0.5)), (0.5,), 0.1)
    chosen = torch.tensor([[0, 1, 1], [1, 0, 0]])
    squares = Counting()
    order = Order(chosen.argsort(dim=1, stable=True), depths, chosen)
    waiting = Waiting(squares, order, torch.zeros(3, 2, 5), 5)  # type: ignore[arg-type]
    for place in range(5):
        waiting.add(place, _target(1.0))
    # The deepest classes first; what comes behind the classes counts from the first layer that there is.
    assert squares.calls == [(5, [[2, 2], [7, 2], [7, 7], [2, 2], [2, 2]])]


@pytest.mark.parametrize("joined", [1, 2, 3, CLASSES])
@pytest.mark.parametrize("name", ["BatchNorm CNN", "ResNet", "layer used twice", "tokens", "unknown layer"])
def test_norms_do_not_depend_on_how_many_are_formed_together(
    name: str, joined: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uses, "_WORTH_A_CALL", 0)
    network, x = build(name), copies()
    last = max(layer.index for layer in find_layers(private_copy(network), x[:, 0]))
    depths = Depths((Depth(1, 0.0, 1.0), Depth(last // 2, 0.05, 0.5), Depth(last, 0.5, 0.1)), (0.5,), 0.05)

    def squared(joined: int, depths: Depths | None) -> Tensor:
        own = private_copy(network)
        layers = find_layers(own, x[:, 0])
        engine = ExactEngine(own, layers, layer_weights(layers, 0.3), x[:, 0], x.shape[1], depths=depths)
        object.__setattr__(engine._costs, "joined", joined)
        return engine(x, lambda log_p: torch.full_like(log_p, 1 / CLASSES)[:, None]).squared

    for each in (None, depths):
        monkeypatch.setattr(uses, "_WORTH_A_CALL", 1 << 60)
        wanted = squared(1, each)
        monkeypatch.setattr(uses, "_WORTH_A_CALL", 0)
        torch.testing.assert_close(squared(joined, each), wanted, rtol=1e-9, atol=0)


def test_layers_without_any_gradient_are_0() -> None:
    network = private_copy(nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, CLASSES)).double())
    x = copies()
    layers = find_layers(network, x[:, 0])
    engine = ExactEngine(network, layers, layer_weights(layers, 0.3), x[:, 0])
    _, recording, _ = engine._record(x.flatten(0, 1), len(x))
    squares = Squares(recording, engine._place, [layer.index for layer in layers], x.device)
    assert squares([Differentiated(set(), {}, {})] * 2).tolist() == torch.zeros(2, len(x), len(layers)).tolist()
