"""Rules tried on a network: what no rule can see is found before it is relied upon."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from regrad.errors import UsageError
from regrad.gradients import rules
from regrad.gradients.check import trusted
from regrad.gradients.recorded.recording import Watched
from regrad.gradients.rules import RULES
from tests.networks import SIZE, build


def _left(network: nn.Module, size: int = SIZE) -> set[str]:
    """What is left to autograd when all layers, subclasses too, are tried with the rule of their PyTorch type."""
    network.requires_grad_(False)
    names = {id(value): name for name, value in network.named_parameters()}
    watched = [
        Watched(module, RULES[kind], {own: names[id(value)] for own, value in module.named_parameters(recurse=False)})
        for module in network.modules()
        for kind in (nn.Linear, nn.Conv2d, nn.BatchNorm2d, nn.LayerNorm)
        if isinstance(module, kind)
    ]
    probe = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kept = trusted(network, dict(network.named_parameters()), watched, probe)
    return set(names.values()) - {name for item in kept for name in item.parameters.values()}


def test_rules_that_hold_pass() -> None:
    assert _left(build("ResNet")) == set()


def test_a_weight_that_a_function_uses_once_more_is_found_and_its_bias_kept() -> None:
    assert _left(build("layer used twice")) == {"c.weight"}


def test_an_output_that_a_subclass_scales_is_found() -> None:
    class Scaled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    network = nn.Sequential(nn.Flatten(), Scaled(3 * 16, 5), nn.Tanh(), nn.Linear(5, 5)).double()
    assert _left(network, 4) == {"1.weight", "1.bias"}


def test_a_rule_that_raises_is_found_too() -> None:
    class ChannelsFirst(nn.LayerNorm):
        """As in ConvNeXt: what its type normalises over is not the last dimension here."""

        def forward(self, x: Tensor) -> Tensor:
            return F.layer_norm(x.movedim(1, -1), self.normalized_shape, self.weight, self.bias).movedim(-1, 1)

    network = nn.Sequential(nn.Conv2d(3, 6, 3), ChannelsFirst(6), nn.Flatten(), nn.Linear(6 * 4, 5)).double()
    assert _left(network, 4) == {"1.weight", "1.bias"}


def test_nothing_is_left_on_the_network() -> None:
    network = build("ResNet")
    _left(network)
    assert not any(module._forward_hooks for module in network.modules())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in network.parameters())


def test_a_rule_that_mixes_images_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one image alone it would look right."""

    def mixing(module: nn.Linear, x: Tensor, images: int) -> Any:
        return rules.linear(module, x.flip(0), images)

    monkeypatch.setitem(RULES, nn.Linear, mixing)
    assert _left(build("ResNet")) == {"fc.weight"}


def test_layers_that_are_run_again_in_the_backward_pass_are_left_to_autograd() -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.fc = nn.Sequential(nn.Flatten(), nn.Linear(48, 6), nn.Tanh()), nn.Linear(6, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(checkpoint(self.inner, x, use_reentrant=False))

    assert {"inner.1.weight", "inner.1.bias"} <= _left(Checkpointed().double(), 4)


def test_a_bias_whose_gradient_is_zero_but_for_rounding_is_no_reason_to_distrust_its_rule() -> None:
    """As that of keys in attention: softmax does not see what all of its inputs have in common."""

    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.key, self.fc = nn.Linear(3, 3), nn.Linear(3, 5)

        def forward(self, x: Tensor) -> Tensor:
            tokens = x.flatten(2).mT
            weights = (tokens @ self.key(tokens).mT).softmax(2)
            return self.fc((weights @ tokens).mean(1))

    torch.manual_seed(0)
    network = Attends().double()
    assert _left(network, 4) == set()
    network.key.bias.requires_grad_(True)
    x = torch.rand(1, 3, 4, 4, dtype=torch.float64)
    assert torch.autograd.grad(network(x)[0, 0], network.key.bias)[0].norm() < 1e-12


class NoBackward(torch.autograd.Function):
    """x, as what was written for predictions alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()


def test_what_autograd_cannot_differentiate_is_refused() -> None:
    class Predicts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(48, 5)

        def forward(self, x: Tensor) -> Tensor:
            return NoBackward.apply(self.fc(x.flatten(1)))

    with pytest.raises(UsageError, match=r"autograd cannot differentiate Predicts: .*; scores of predictions alone"):
        _left(Predicts().double(), 4)
