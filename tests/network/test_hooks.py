"""Hooks and gradients that are there for a while, and gone whatever happens."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from regrad.network.hooks import Call, hooked, pulled_back, requiring_grad


def _hooks(module: nn.Module) -> int:
    return len(module._forward_hooks) + len(module._forward_pre_hooks)


def test_calls_are_seen_by_key_with_what_they_were_given_and_returned() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    entered: list[str] = []
    left: list[Call] = []
    x = torch.rand(4, 2)

    def enter(name: str, call: Call) -> None:
        entered.append(name)
        assert call.output is None

    with hooked({"a": network[0], "b": network[1]}, enter, lambda name, call: left.append(call)):
        y = network(x)
    network(x)
    assert entered == ["a", "b"]
    assert left[0].input is x
    assert left[0].output is left[1].input
    assert left[1].output is y


def test_an_input_by_keyword_is_one() -> None:
    linear, calls = nn.Linear(2, 3), []
    with hooked({0: linear}, leave=lambda _, call: calls.append(call)):
        linear(input=torch.ones(1, 2))
    assert calls[0].input.tolist() == [[1.0, 1.0]]
    assert calls[0].args == ()


@pytest.mark.parametrize("by_keyword", [False, True])
def test_inputs_and_outputs_may_be_replaced(by_keyword: bool) -> None:
    linear, x = nn.Linear(2, 3), torch.rand(1, 2)

    def double(_: int, call: Call) -> Call:
        return call.with_input(2 * call.input)

    with hooked({0: linear}, double, lambda _, call: call.output + 1):
        found = linear(input=x) if by_keyword else linear(x)
    torch.testing.assert_close(found, linear(2 * x) + 1)


def test_hooks_are_gone_after_an_error_in_the_network_or_in_a_hook() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(4, 1))
    modules = dict(network.named_modules())

    def broken(name: str, call: Call) -> None:
        raise KeyError(name)

    for leave, error in ((None, RuntimeError), (broken, KeyError)):
        with pytest.raises(error), hooked(modules, lambda name, call: None, leave):
            network(torch.rand(1, 2))
        assert [_hooks(module) for module in network.modules()] == [0, 0, 0]


def test_parameters_ask_for_gradients_inside_alone() -> None:
    network = nn.Linear(2, 3)
    network.bias.requires_grad_(False)
    inside: list[bool] = []

    def broken() -> None:
        inside.append(network.bias.requires_grad)
        raise KeyError

    with pytest.raises(KeyError), requiring_grad(network.parameters()):
        broken()
    assert inside == [True]
    assert network.weight.requires_grad
    assert not network.bias.requires_grad


def test_what_is_pulled_back_is_what_autograd_gives() -> None:
    torch.manual_seed(0)
    network, unused = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4)), torch.ones(2, requires_grad=True)
    x, inputs = torch.rand(6, 3), [*network.parameters(), unused]
    logits = network(x)
    for cotangent in (torch.rand(6, 4), torch.ones(1, 4).expand(6, 4)):
        expected = torch.autograd.grad(logits, inputs, cotangent, retain_graph=True, allow_unused=True)
        *gradients, none = pulled_back(cotangent, logits, inputs, retain_graph=True)
        assert none is None
        assert all(torch.equal(own, its) for own, its in zip(gradients, expected, strict=False))
    assert all(parameter.grad is None for parameter in network.parameters())
    pulled_back(cotangent, logits, inputs)
    with pytest.raises(RuntimeError, match="second time"):
        pulled_back(cotangent, logits, inputs)
