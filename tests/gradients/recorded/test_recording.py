"""A forward pass's record, and the norms that it gives for output gradients, against autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from regrad.gradients.recorded.recording import Recording, Watched
from regrad.gradients.recorded.uses import Sums
from regrad.gradients.rules import RULES
from regrad.network.hooks import hooked

IMAGES, COPIES, TARGETS = 3, 2, 4


def _record(network: nn.Module, names: list[str], x: Tensor, together: bool = False) -> tuple[Recording, Tensor]:
    recording = Recording(IMAGES, together)
    modules = {name: network.get_submodule(name) for name in names}
    watched = {
        name: Watched(
            module, RULES[type(module)], {own: f"{name}.{own}" for own, _ in module.named_parameters(recurse=False)}
        )
        for name, module in modules.items()
    }
    with hooked(modules, leave=lambda name, call: recording.note(watched[name], call)):
        return recording, network(x)


def _wanted(network: nn.Module, x: Tensor, d: Tensor) -> dict[str, Tensor]:
    """Autograd's squared norms, an image at a time."""
    parameters = dict(network.named_parameters())
    squares: dict[str, list[Tensor]] = {name: [] for name in parameters}
    for own, its in zip(x.split(COPIES), d.split(COPIES), strict=True):
        gradients = torch.autograd.grad((network(own) * its).sum(), list(parameters.values()))
        for name, gradient in zip(parameters, gradients, strict=True):
            squares[name].append(gradient.square().sum())
    return {name: torch.stack(values) for name, values in squares.items()}


@pytest.mark.parametrize("together", [False, True], ids=["one at a time", "at once"])
@pytest.mark.parametrize("targets", [1, 1000], ids=["direct form", "Gram form"])
def test_norms_are_those_of_autograd_for_a_layer_called_twice(targets: int, together: bool) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 9, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(9 * 9, 9)).double()
    network.append(nn.Tanh())
    network.append(nn.Linear(9, 9).double())
    network.append(network[5])
    network.requires_grad_(False)
    x = torch.randn(IMAGES * COPIES, 3, 3, 3, dtype=torch.float64)
    recording, y = _record(network, ["0", "3", "5"], x, together)
    assert len(recording.edges) == 4
    assert recording.uses["5.weight"].outputs == [2, 3]
    recording.prepare(targets)
    forms = {name: use.gram is not None for name, use in recording.uses.items() if name.endswith("weight")}
    assert forms == {"0.weight": targets == 1000, "3.weight": True, "5.weight": True}
    d = torch.randn(TARGETS, *y.shape, dtype=torch.float64)
    wanted = _wanted(network.requires_grad_(True), x, d[0])
    sums = Sums(len(wanted), x.device)

    def squares(d: Tensor) -> Tensor:
        gradients = dict(enumerate(torch.autograd.grad(y, recording.edges, d, retain_graph=True)))
        addends = recording.addends([gradients], [wanted])
        assert addends.keys() == wanted.keys()
        return sums([(column, addends[name]) for column, name in enumerate(wanted)])[0]

    torch.testing.assert_close(squares(d[0]), torch.stack([*wanted.values()], 1), rtol=1e-9, atol=0)
    one_by_one = torch.stack([squares(each) for each in d])
    torch.testing.assert_close(torch.vmap(squares)(d), one_by_one, rtol=1e-9, atol=0)
    assert recording.addends([dict.fromkeys(range(4))], [wanted]) == {}
    assert recording.outputs(["5.weight", "0.weight", "none"]) == [0, 2, 3]


def test_what_comes_before_the_first_watched_module_builds_no_graph() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).requires_grad_(False)
    recording, y = _record(network, ["1"], torch.rand(IMAGES, 2))
    assert y.requires_grad
    assert not network[0](torch.rand(IMAGES, 2)).requires_grad
    assert set(recording.uses) == {"1.weight", "1.bias"}


def test_bytes_are_the_output_gradients_twice_and_what_is_formed() -> None:
    network = nn.Sequential(nn.Linear(6, 4)).requires_grad_(False)
    recording = Recording(1)
    watched = Watched(network[0], RULES[nn.Linear], {"weight": "0.weight", "bias": "0.bias"})
    with hooked({0: network[0]}, leave=lambda _, call: recording.note(watched, call)):
        network(torch.rand(1, 6))
    # Of weight and bias each, 4 numbers of 4 bytes; and for 3 copies a Gram matrix of 3 by 3.
    assert recording.bytes_per_target(3, 4) == 2 * 2 * 4 * 4
    assert recording.bytes_per_output() == 4 * 4
    assert recording.bytes_held(10, 3, 4) == 9 * 4 // 3
