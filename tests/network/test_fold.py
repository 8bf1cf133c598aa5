"""BatchNorm folded into convolutions where a network is only run forward."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from regrad import Classifier, Scorer
from regrad.network.copies import private_copy
from regrad.network.fold import convolution_format, fold_batch_norms
from tests.networks import build, copies


def _norms(network: nn.Module) -> list[str]:
    return [name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]


def test_every_pair_is_folded_and_the_function_stays() -> None:
    network = build("ResNet")
    x = copies(images=4)[:, 0]
    wanted = network(x)
    clone = private_copy(network)
    assert fold_batch_norms(clone, set(), x[:1]) == len(_norms(network)) > 8
    assert not _norms(clone)
    torch.testing.assert_close(clone(x), wanted, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(network(x), wanted, rtol=0, atol=0)


def test_modules_that_are_differentiated_stay() -> None:
    clone = private_copy(build("ResNet"))
    fold_batch_norms(clone, {"layer4.0.bn1", "layer3.0.conv2"}, copies()[:1, 0])
    assert _norms(clone) == ["layer3.0.bn2", "layer4.0.bn1"]


def test_a_convolution_that_is_also_used_bare_is_not_folded() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
            self.norm.running_mean.fill_(1.0)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return (self.norm(y) + y).mean((2, 3))

    network = private_copy(Both().double())
    x = copies()[:, 0]
    before = network(x)
    assert fold_batch_norms(network, set(), x) == 0
    torch.testing.assert_close(network(x), before, rtol=0, atol=0)
    assert _norms(network) == ["norm"]


def test_a_norm_before_its_convolution_is_left_alone() -> None:
    network = private_copy(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.Flatten()).double())
    assert fold_batch_norms(network, set(), copies()[:1, 0]) == 0


def test_a_network_with_weights_of_five_dimensions_is_laid_out_too() -> None:
    class Lambda(nn.Module):
        """As timm's lambda layers: positions in a three-dimensional convolution."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.positions = nn.Conv2d(3, 4, 3, padding=1), nn.Conv3d(1, 2, (1, 3, 3), padding=(0, 1, 1))
            self.head = nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.positions(self.conv(x).unsqueeze(1)).mean((3, 4)).flatten(1))

    network = private_copy(Lambda().double())
    x = copies(images=2)[:, 0]
    before, weight = network(x), network.conv.weight
    torch.testing.assert_close(convolution_format(network)(x), before, rtol=1e-12, atol=1e-12)
    assert network.conv.weight is weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert network.positions.weight.is_contiguous()
    assert set(Scorer(Classifier(Lambda(), 8, mean=0.5, std=0.25), ("regrad",))(torch.rand(2, 3, 8, 8), ["a", "b"]))
