"""Norms of one parameter's gradients of several targets at once, against autograd."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from regrad.gradients.recorded import uses
from regrad.gradients.recorded.uses import Addends, Use, gram_is_cheaper, stacked
from regrad.gradients.rules import Outer, find_rule

IMAGES, COPIES, TARGETS = 3, 4, 5
LAYERS = {
    "convolution": (nn.Conv2d(3, 6, 3, padding=1), (3, 5, 5)),
    "groups": (nn.Conv2d(6, 4, 2, groups=2, stride=2), (6, 5, 5)),
    "linear": (nn.Linear(7, 3), (4, 7)),
    "BatchNorm": (nn.BatchNorm2d(3), (3, 4, 4)),
}


def use_of(layer: nn.Module, inputs: Sequence[Tensor], targets: int) -> Use:
    """Of the weight of a layer that is called with each of ``inputs``."""
    rule = find_rule(layer)
    assert rule is not None
    use = Use({"weight": "layer.weight"})
    for call, x in enumerate(inputs):
        use.add(rule(layer, x, IMAGES)["weight"], call)
    use.prepare(targets)
    return use


def wanted_squares(layer: nn.Module, inputs: Sequence[Tensor], d: Sequence[Tensor]) -> Tensor:
    """Of one target, (B,), by autograd: the gradient of sum over calls of <D, y>."""
    squares = []
    for image in range(IMAGES):
        part = slice(image * COPIES, (image + 1) * COPIES)
        value = sum((layer(x[part]) * own[part]).sum() for x, own in zip(inputs, d, strict=True))
        squares.append(torch.autograd.grad(value, layer.weight)[0].square().sum())  # type: ignore[arg-type]
    return torch.stack(squares)


def squares_of(addends: Addends) -> Tensor:
    """(T, B)."""
    return (addends.numbers.square() if addends.to_square else addends.numbers).sum(2)


@pytest.mark.parametrize("calls", [1, 2])
@pytest.mark.parametrize(("worth_a_call", "targets"), [(0, 1), (1 << 60, 1), (0, 10**9), (1 << 60, 10**9)])
@pytest.mark.parametrize("name", LAYERS)
def test_several_targets_at_once_are_those_of_autograd(
    name: str, worth_a_call: int, targets: int, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uses, "_WORTH_A_CALL", worth_a_call)
    torch.manual_seed(0)
    layer, shape = LAYERS[name]
    layer = layer.double().eval()
    inputs = [torch.randn(IMAGES * COPIES, *shape, dtype=torch.float64) for _ in range(calls)]
    d = torch.randn(TARGETS, calls, *layer(inputs[0]).shape, dtype=torch.float64)
    use = use_of(layer, inputs, targets)
    outer = [factor for factor in use.factors if isinstance(factor, Outer)]
    assert (use.gram is not None) == (bool(outer) and gram_is_cheaper(outer, targets))
    assert (use.inputs == []) == (use.gram is not None or (name != "BatchNorm" and use.by_image()))
    wanted = torch.stack([wanted_squares(layer, inputs, own) for own in d.unbind()])
    gradients = [dict(enumerate(own.unbind())) for own in d.unbind()]
    (found,) = use.take(gradients).values()
    torch.testing.assert_close(squares_of(found), wanted, rtol=1e-10, atol=0)
    (alone,) = use.take(gradients[2:3]).values()
    torch.testing.assert_close(squares_of(alone), wanted[2:3], rtol=1e-10, atol=0)
    assert use.take([dict.fromkeys(range(calls))]) == {}


def test_by_image_only_what_is_wanted_is_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uses, "_WORTH_A_CALL", 0)
    torch.manual_seed(0)
    layer, shape = LAYERS["convolution"]
    layer, x = layer.double(), torch.randn(IMAGES * COPIES, *shape, dtype=torch.float64)
    use = use_of(layer, [x], 1)
    columns: list[int] = []
    summed = uses.outer_sum
    use.product = lambda rows, inputs: columns.append(rows.shape[3]) or summed(rows, inputs)  # type: ignore[func-returns-value]
    monkeypatch.setattr(uses, "outer_sum", use.product)
    gradients = [{0: torch.randn_like(layer(x).detach())} for _ in range(TARGETS)]
    wanted = [[True, False, False], [True, True, False], [False, True, False], [True, True, False], [True, True, False]]
    (found,) = use.take(gradients, wanted).values()
    assert columns == [4 * 6, 4 * 6]  # of two images, four targets each; nothing of the third image
    (whole,) = use.take(gradients).values()
    mask = torch.tensor(wanted)
    torch.testing.assert_close(found.numbers[mask], whole.numbers[mask], rtol=1e-12, atol=0)
    assert not found.numbers[~mask].any()


def test_a_product_an_image_pays_from_some_size_on() -> None:
    layer, x = nn.Conv2d(16, 32, 3, padding=1), torch.rand(IMAGES, 16, 10, 10)
    rule = find_rule(layer)
    assert rule is not None
    use = Use({"weight": "weight"})
    use.add(rule(layer, x, IMAGES)["weight"], 0)
    product = 100 * 16 * 9 * 32
    fewest = math.ceil(uses._WORTH_A_CALL / product)
    assert not use.by_image(fewest - 1)
    assert use.by_image(fewest)
    assert use.held(1, fewest - 1) == 100 * 16 * 9 * (fewest - 1)
    assert use.held(1, fewest) == 0  # A is never held as a whole


def test_numbers_of_some_targets_among_all() -> None:
    some = Addends(torch.ones(2, 3, 4), to_square=True)
    spread = some.spread([0, 3], 5)
    assert spread.numbers.sum((1, 2)).tolist() == [12, 0, 0, 12, 0]
    assert some.spread([0, 1], 2) is some
    assert stacked([some.numbers]).shape == (1, 2, 3, 4)
    assert stacked([some.numbers, some.numbers]).shape == (2, 2, 3, 4)
