"""The last layer: found, taken out, and its class gradients in closed form."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regrad.network import head
from regrad.network.copies import private_copy
from tests.networks import NETWORKS, build, copies


@pytest.mark.parametrize("name", NETWORKS)
def test_a_linear_head_is_found(name: str) -> None:
    found = head.find_head(private_copy(build(name)), copies()[:, 0])
    assert found == {"timm ViT": "head", "torchvision ViT": "heads.head"}.get(name, "fc")


def test_a_head_whose_weight_serves_twice_is_none() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(5, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(torch.tanh(F.linear(x.mean((2, 3)).repeat(1, 2)[:, :5], self.fc.weight)))

    assert head.find_head(private_copy(Tied()), torch.rand(2, 3, 4, 4)) is None


@pytest.mark.parametrize("bias", [True, False])
def test_its_class_gradients_follow_from_its_input(bias: bool) -> None:
    """Against autograd of the mean log-probability over copies, for classes and for a further distribution."""
    torch.manual_seed(0)
    linear, h = nn.Linear(4, 3, bias=bias).double(), torch.randn(2, 5, 4, dtype=torch.float64)
    p = linear(h).softmax(2)
    q = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    found = head.squared_norms(h, p.detach(), q.expand(2, 1, 3), bias)
    for b, image in enumerate(h):
        log_p = linear(image).log_softmax(1).mean(0)
        for target, value in enumerate([*log_p, q @ log_p]):
            gradients = torch.autograd.grad(value, list(linear.parameters()), retain_graph=True)
            wanted = sum(gradient.square().sum() for gradient in gradients)
            torch.testing.assert_close(found[b, target], wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gap", [5.0, 30.0, 60.0])
def test_its_norms_are_as_exact_where_the_network_is_sure(gap: float) -> None:
    """That of the class it is sure of, and of its own prediction, against sums in which nothing large cancels."""
    torch.manual_seed(0)
    h = 3 * torch.randn(2, 4, 6, dtype=torch.float64)
    logits = torch.randn(2, 4, 5, dtype=torch.float64)
    logits[..., 2] += gap
    p = logits.softmax(2)
    others = p.scatter(2, torch.full((2, 4, 1), 2), 0)
    small = -others  # e_2 - p_i, without 1 - p
    small[..., 2] = others.sum(2)
    rows = torch.cat([h, torch.ones(2, 4, 1, dtype=torch.float64)], 2)

    def squares(differences: Tensor) -> Tensor:
        return torch.einsum("bic,bid->bcd", differences, rows).div(4).square().sum((1, 2))

    units = torch.eye(5, dtype=torch.float64)
    wanted = [squares(small + (units[c] - units[2])) for c in range(5)]
    found = head.squared_norms(h, p, p[:, :1])
    torch.testing.assert_close(found[:, :5], torch.stack(wanted, 1), rtol=1e-12, atol=0)
    torch.testing.assert_close(found[:, 5], squares(small - small[:, :1]), rtol=1e-9, atol=0)


def test_logits_and_what_the_head_makes_them_of_come_from_one_pass() -> None:
    network, x = private_copy(build("ResNet")), copies()[:, 0]
    read = head.HeadInput(network, "fc")
    logits, h = read(x)
    torch.testing.assert_close(logits, network(x).double(), rtol=0, atol=0)
    torch.testing.assert_close(read.layer(h), logits, rtol=1e-12, atol=1e-12)
    assert not network.get_submodule("fc")._forward_hooks


def test_without_its_head_a_network_returns_the_heads_input() -> None:
    network, x = private_copy(build("ResNet")), copies()[:, 0]
    wanted = network(x)
    linear = head.without_head(network, "fc")
    assert network(x).shape == (3, 256)
    torch.testing.assert_close(F.linear(network(x), linear.weight, linear.bias), wanted, rtol=1e-12, atol=0)
