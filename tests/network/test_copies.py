"""Private copies: nothing done to one can be seen on the caller's network."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from regrad.errors import UsageError
from regrad.network.copies import computes_in, floating_type, plain_attention, private_copy
from tests.networks import LayerUsedTwice


def test_a_private_copy_shares_memory_and_nothing_else() -> None:
    network = LayerUsedTwice().train()
    clone = private_copy(network)
    assert clone.a.weight is clone.b.weight
    assert clone.a.weight.data_ptr() == network.a.weight.data_ptr()
    assert network.training
    assert not clone.training
    assert network.a.weight.requires_grad
    assert not clone.a.weight.requires_grad


def test_in_place_layers_change_nothing_any_more() -> None:
    network = nn.Sequential(nn.ReLU(inplace=True), nn.Sequential(nn.Dropout(inplace=True)))
    clone, x = private_copy(network), -torch.ones(2)
    clone(x)
    assert x.tolist() == [-1, -1]
    assert network[0].inplace


def test_forward_hooks_come_along() -> None:
    network = nn.Linear(2, 2)
    network.register_forward_hook(lambda module, args, output: 3 * output)
    x = torch.rand(1, 2)
    torch.testing.assert_close(private_copy(network)(x), network(x))


def test_what_cannot_be_copied_is_refused_in_one_line() -> None:
    network = nn.Linear(2, 2)
    network.lines = (line for line in ("a", "b"))
    with pytest.raises(UsageError, match=r"Linear cannot be copied .*generator"):
        private_copy(network)


def test_the_fast_path_of_attention_is_off_inside_alone() -> None:
    before = torch.backends.mha.get_fastpath_enabled()
    with plain_attention():
        assert not torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.mha.get_fastpath_enabled() == before


# -- what deepcopy does not take ---------------------------------------------------------------------------------------


def test_functions_on_a_network_call_the_modules_of_the_copy() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    first, factor = network[0], [2.0]
    network[0].forward = lambda x: factor[0] * nn.Linear.forward(first, x)  # type: ignore[method-assign]
    network.register_forward_hook(lambda module, args, output: output + network[1].bias.sum())
    x = torch.rand(4, 2)
    wanted = network(x)
    clone = private_copy(network)
    torch.testing.assert_close(clone(x), wanted)
    for module in (clone[0], clone[1]):
        module.weight = nn.Parameter(torch.zeros_like(module.weight))
        module.bias = nn.Parameter(torch.ones_like(module.bias))
    torch.testing.assert_close(clone(x), torch.full((4, 2), 3.0))
    torch.testing.assert_close(network(x), wanted)


def test_a_function_that_holds_none_of_its_modules_is_the_same_in_the_copy() -> None:
    seen: list[int] = []
    network = nn.Linear(2, 2)
    network.register_forward_hook(lambda module, args, output: seen.append(1))
    private_copy(network)(torch.rand(1, 2))
    assert seen == [1]


def test_methods_of_a_module_that_were_put_elsewhere_are_the_copys() -> None:
    network = nn.Sequential(nn.Linear(2, 2))
    network.call = partial(network[0].forward)  # type: ignore[assignment]
    clone = private_copy(network)
    assert clone.call.func.__self__ is clone[0]  # type: ignore[union-attr, operator]


def test_backward_hooks_stay_behind() -> None:
    network = nn.Linear(2, 2)
    network.register_full_backward_hook(lambda module, before, after: None)
    network.register_full_backward_pre_hook(lambda module, after: None)
    clone = private_copy(network)
    assert not clone._backward_hooks
    assert not clone._backward_pre_hooks
    assert network._backward_hooks


def test_tensors_with_a_graph_modules_and_locks_are_no_obstacle() -> None:
    network = nn.Linear(2, 2)
    network.cached = [2 * network.weight]
    network.F, network.lock = torch.nn.functional, threading.Lock()
    clone = private_copy(network)
    assert clone.cached[0].grad_fn is None
    torch.testing.assert_close(clone.cached[0], 2 * network.weight.detach())
    assert clone.F is torch.nn.functional


def test_what_was_made_in_inference_mode_can_be_differentiated() -> None:
    with torch.inference_mode():
        network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval()
    x = torch.rand(3, 2)
    clone = private_copy(network)
    with torch.no_grad():
        torch.testing.assert_close(clone(x), network(x))
    clone.requires_grad_(True)
    assert torch.autograd.grad(clone(x).sum(), clone[0].weight)[0].shape == (2, 2)


@pytest.mark.parametrize(
    "wrap",
    [nn.DataParallel, lambda inner: torch.compile(inner, backend="eager"), torch.optim.swa_utils.AveragedModel],
    ids=["DataParallel", "compiled", "averaged"],
)
def test_wrappers_are_taken_off_around_and_inside(wrap: Callable[[nn.Module], nn.Module]) -> None:
    inner = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    network = wrap(nn.Sequential(wrap(inner), nn.Linear(2, 2)))
    network.register_forward_hook(lambda module, args, output: 2 * output)
    network.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    x = torch.rand(3, 2)
    clone = private_copy(network)
    assert [name for name, _ in clone.named_parameters()][:2] == ["0.0.weight", "0.0.bias"]
    torch.testing.assert_close(clone(x), network(x))


def test_the_type_of_a_network_is_that_of_its_first_real_parameter() -> None:
    network = nn.ParameterList([nn.Parameter(torch.tensor([1]), requires_grad=False), torch.zeros(1).half()])
    assert floating_type(network) == torch.float16
    assert floating_type(nn.Identity()) == torch.float32


def test_whether_a_network_computes_in_another_type_is_tried() -> None:
    class Floats(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x.float())

    assert computes_in(torch.float64, private_copy(nn.Linear(2, 2)), torch.rand(1, 2))
    assert not computes_in(torch.float64, private_copy(Floats()), torch.rand(1, 2))
