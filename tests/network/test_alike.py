"""Whether a module computes what a type does."""

from __future__ import annotations

import pytest
import torch
from timm.layers import norm
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from regrad.network.alike import SAME, computes_as


class Named(nn.Linear):
    def __init__(self, name: str) -> None:
        super().__init__(2, 2)
        self.name = name

    def extra_repr(self) -> str:
        return self.name


class Scaled(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class Standardised(nn.Conv2d):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, weight - weight.mean(), bias)


class Called(nn.Linear):
    def __call__(self, x: Tensor) -> Tensor:
        return -super().__call__(x)


@pytest.mark.parametrize(
    ("module", "kind", "same"),
    [
        (nn.Linear(2, 2), nn.Linear, True),
        (Named("a"), nn.Linear, True),
        (nn.LazyLinear(2), nn.Linear, True),
        (Scaled(2, 2), nn.Linear, False),
        (Scaled(2, 2), Scaled, True),
        (Called(2, 2), nn.Linear, False),
        (nn.Linear(2, 2), nn.Conv2d, False),
        (Standardised(2, 2, 1), nn.Conv2d, False),
        (nn.ConvTranspose2d(2, 2, 1), nn.Conv2d, False),
        (parametrizations.weight_norm(nn.Linear(2, 2)), nn.Linear, True),
        (norm.LayerNorm(2), nn.LayerNorm, True),
        (norm.LayerNorm2d(2), nn.LayerNorm, False),
        (norm.GroupNorm1(2), nn.GroupNorm, True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else getattr(value, "__name__", value),
)
def test_methods_decide_and_not_the_name(module: nn.Module, kind: type[nn.Module], same: bool) -> None:
    assert computes_as(module, kind) == same


def test_a_forward_put_on_the_module_itself_is_another_one() -> None:
    module = nn.Linear(2, 2)
    module.forward = lambda x: x  # type: ignore[method-assign]
    assert not computes_as(module, nn.Linear)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in SAME.items() for name in names])
def test_types_of_other_libraries_compute_the_same(kind: type[nn.Module], name: str) -> None:
    module_name, _, own = name.rpartition(".")
    other = getattr(__import__(module_name, fromlist=[own]), own)
    module = {nn.Linear: nn.Linear(6, 4), nn.LayerNorm: nn.LayerNorm(6), nn.GroupNorm: nn.GroupNorm(2, 6)}[kind]
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(3, 6)
    wanted = module(x)
    module.__class__, module._fast_norm = other, False
    torch.testing.assert_close(module(x), wanted)
