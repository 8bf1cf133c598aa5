"""Which parameters the logits depend on, and networks of which autograd does not see all."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from regrad.errors import UsageError
from regrad.network.copies import private_copy
from regrad.network.reach import reached_parameters
from tests import unusual
from tests.networks import build, copies

X = torch.rand(3, 1, unusual.SIZE, unusual.SIZE, generator=torch.Generator().manual_seed(3))


def _reached(network: nn.Module, x: Tensor = X) -> set[str]:
    clone = private_copy(network)
    found = reached_parameters(clone, x)
    assert not any(parameter.requires_grad for parameter in clone.parameters())
    return {name for name, value in clone.named_parameters() if id(value) in found}


def test_an_auxiliary_head_is_not_reached() -> None:
    network = build("unknown layer")
    every = {name for name, _ in network.named_parameters()}
    assert _reached(network, copies()[:, 0]) == every - {"auxiliary.weight", "auxiliary.bias"}


def test_a_layer_that_runs_for_nothing_is_not_reached() -> None:
    """Its output is thrown away: it is called, and the logits do not depend on it."""

    class Wasteful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.other = unusual.plain(), nn.Linear(unusual.CLASSES, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.net(x)
            self.other(y.detach())
            return y

    assert not {"other.weight", "other.bias"} & _reached(Wasteful())


def test_what_images_choose_among_is_all_reached() -> None:
    dark = X * torch.tensor([1.0, 0.5, 1.0])[:, None, None, None]
    assert {"heads.0.weight", "heads.1.weight"} <= _reached(unusual.Experts(), dark)
    assert "heads.0.weight" not in _reached(unusual.Experts(), X)


def test_a_threshold_on_a_parameter_is_no_gradient_that_is_missed() -> None:
    """Logits that jump do not change in proportion to a small step."""

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.gate = unusual.plain(), nn.Parameter(torch.tensor(0.5))

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) * (x.mean((1, 2, 3), keepdim=False) > self.gate.detach())[:, None]

    assert "gate" not in _reached(Gated())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "no_grad before the head",
            r"depend on net\.0\.weight, net\.0\.bias, net\.1\.weight and 1 more, but no gradient",
        ),
        ("no_grad", r"net\.1\.weight and 3 more, but no gradient comes there: the layers run under no_grad"),
        ("inference mode", "no gradient comes there"),
        ("inference mode before the head", "no gradient comes there"),
        ("detached", "or their outputs are detached; take that out of the network's forward"),
        ("reentrant checkpoint", "in a re-entrant checkpoint"),
        ("no parameters", "the network has no parameters: there is no gradient to measure"),
        ("scripted", "the network is a TorchScript program, .*: give the torch.nn.Module that it was made of"),
        ("scripted part", "0 is a TorchScript program"),
        ("quantised head", r"5 \(Linear\) is quantised, which has none; give the network as it was before"),
        ("complex", "3.weight is a complex parameter"),
    ],
)
def test_what_has_no_gradient_is_refused_with_its_reason(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        _reached(unusual.build(name).eval())
    assert "\n" not in str(caught.value)
