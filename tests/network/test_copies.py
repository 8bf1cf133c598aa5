"""Private copies: nothing done to one can be seen on the caller's network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from regrad.errors import UsageError
from regrad.network.copies import plain_attention, private_copy
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
