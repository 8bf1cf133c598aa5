"""Rules tried on a network: what no rule can see is found before it is relied upon."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regrad.gradients.check import disagreeing
from regrad.gradients.recording import Watched
from tests.networks import SIZE, build


def _disagreeing(network: nn.Module, size: int = SIZE) -> set[str]:
    """What fails when all modules with a rule are watched."""
    network.requires_grad_(False)
    kinds = (nn.Linear, nn.Conv2d, nn.BatchNorm2d, nn.LayerNorm)
    names = {id(value): name for name, value in network.named_parameters()}
    watched = [
        Watched(module, {own: names[id(value)] for own, value in module.named_parameters(recurse=False)})
        for module in network.modules()
        if isinstance(module, kinds)
    ]
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return disagreeing(network, dict(network.named_parameters()), watched, image)


def test_rules_that_hold_pass() -> None:
    assert _disagreeing(build("ResNet")) == set()


def test_a_weight_that_a_function_uses_once_more_is_found_and_its_bias_kept() -> None:
    assert _disagreeing(build("layer used twice")) == {"c.weight"}


def test_an_output_that_a_subclass_scales_is_found() -> None:
    class Scaled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    network = nn.Sequential(nn.Flatten(), Scaled(3 * 16, 5), nn.Tanh(), nn.Linear(5, 5)).double()
    assert _disagreeing(network, 4) == {"1.weight", "1.bias"}


def test_a_rule_that_raises_is_found_too() -> None:
    class ChannelsFirst(nn.LayerNorm):
        """As in ConvNeXt: what its type normalises over is not the last dimension here."""

        def forward(self, x: Tensor) -> Tensor:
            return F.layer_norm(x.movedim(1, -1), self.normalized_shape, self.weight, self.bias).movedim(-1, 1)

    network = nn.Sequential(nn.Conv2d(3, 6, 3), ChannelsFirst(6), nn.Flatten(), nn.Linear(6 * 4, 5)).double()
    assert _disagreeing(network, 4) == {"1.weight", "1.bias"}


def test_nothing_is_left_on_the_network() -> None:
    network = build("ResNet")
    _disagreeing(network)
    assert not any(module._forward_hooks for module in network.modules())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in network.parameters())
