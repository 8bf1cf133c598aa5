"""Layers whose derivative along a direction with shared signs is one product, found by trying."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import jvp, vmap

from regrad.gradients.sketching.directions import draw_block
from regrad.gradients.sketching.shortcuts import AddDerivative, record_calls, row_axis

ROWS = 256  # directions.SHARED_ROWS: fewer share no signs


def _axis(module: nn.Module, x: Tensor) -> int | None:
    torch.manual_seed(0)
    module = module.double()
    values = {name: value.detach() for name, value in module.named_parameters()}
    block = draw_block("layer", 0, values, 2, 0)
    assert block.signs
    with torch.no_grad():
        calls = record_calls({"layer": module}, module, x)
        return row_axis(module, block, calls["layer"])


class Shifted(nn.Linear):
    """A Linear layer whose rows act one place further on."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).roll(1, -1)


class Squared(nn.Linear):
    """Not linear in its parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).square()


@pytest.mark.parametrize(
    ("module", "shape", "axis"),
    [
        (nn.Linear(4, ROWS), (2, 4), 1),
        (nn.Linear(4, ROWS), (2, 3, 4), -1),
        (nn.Conv2d(4, ROWS, 3), (2, 4, 5, 5), 1),
        (nn.BatchNorm2d(ROWS).eval(), (2, ROWS, 2, 2), 1),
        (nn.LayerNorm(ROWS), (2, 3, ROWS), -1),
        (nn.ConvTranspose2d(ROWS, ROWS, 1, bias=False), (2, ROWS, 2, 2), None),
        (Shifted(4, ROWS), (2, 4), None),
        (Squared(4, ROWS), (2, 4), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_the_axis_of_a_layers_rows(module: nn.Module, shape: tuple[int, ...], axis: int | None) -> None:
    assert _axis(module, torch.randn(shape, dtype=torch.float64)) == axis


def test_a_look_up_is_none() -> None:
    assert _axis(nn.Embedding(ROWS, 4), torch.randint(0, ROWS, (2, ROWS))) is None


def test_a_step_adds_its_product_to_the_derivative_and_nothing_to_the_value() -> None:
    x, product = torch.rand(3), torch.rand(3)

    def value(x: Tensor, step: Tensor) -> Tensor:
        return AddDerivative.apply(x * x, step, product)

    def derivative(dx: Tensor, dstep: Tensor) -> Any:
        return jvp(value, (x, torch.zeros(())), (dx, dstep))

    dx, steps = torch.rand(2, 3), torch.rand(2)
    y, dy = vmap(derivative, out_dims=(None, 0))(dx, steps)
    torch.testing.assert_close(y, x * x)
    torch.testing.assert_close(dy, 2 * x * dx + steps[:, None] * product)
