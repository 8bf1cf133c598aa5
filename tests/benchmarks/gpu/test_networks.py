"""The plain networks against torchvision's: the same parameters under the same names, and the same logits."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from regrad import networks as published
from regrad.benchmarks.gpu import networks


@pytest.mark.parametrize(
    ("ours", "theirs", "side"),
    [
        (networks.small_resnet18, lambda: published.resnet18_cifar10()[0], 32),
        (networks.small_resnet18_of_100, lambda: published.resnet18_cifar100()[0], 32),
        (networks.plain_resnet18, torchvision.models.resnet18, 64),
        (networks.plain_resnet50, torchvision.models.resnet50, 64),
        (lambda: (networks.Transformer(32, 8, 2, 2, 16, 32, 7), {}), lambda: small_transformer(), 32),
    ],
    ids=["ResNet-18 for CIFAR-10", "for CIFAR-100", "ResNet-18", "ResNet-50", "transformer"],
)
def test_weights_of_one_fit_the_other(ours: object, theirs: object, side: int) -> None:
    torch.manual_seed(0)
    wanted, found = theirs().eval(), ours()[0].eval()  # type: ignore[operator]
    nn.init.normal_(list(wanted.parameters())[-2])  # torchvision's transformer has a head of zeros
    found.load_state_dict(wanted.state_dict())
    x = torch.rand(2, 3, side, side)
    with torch.no_grad():
        torch.testing.assert_close(found(x), wanted(x), rtol=1e-4, atol=1e-4)


def small_transformer() -> nn.Module:
    return torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=7)


def test_the_transformer_is_vit_b_16() -> None:
    with torch.device("meta"):
        wanted, found = torchvision.models.vit_b_16(), networks.plain_vit_b_16()[0]
    shapes = [{name: value.shape for name, value in each.state_dict().items()} for each in (wanted, found)]
    assert shapes[0] == shapes[1]
