"""What a forward pass holds, and batches cut so that it fits."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from regrad.network.memory import (
    FEWEST,
    KEPT_BYTES,
    LIVE,
    even_slices,
    forward_bytes,
    in_pieces,
    inputs_kept,
    largest_outputs,
    saved_for_backward,
)

NETWORK = nn.Sequential(nn.Linear(4, 32), nn.Linear(32, 8), nn.Linear(8, 16))
PROBE = torch.rand(2, 4)


def test_the_largest_output_is_that_of_an_input_before_and_behind_the_first_counted_module() -> None:
    assert largest_outputs(NETWORK, PROBE) == (32 * 4, 0)
    assert largest_outputs(NETWORK, PROBE, ["1"]) == (32 * 4, 16 * 4)
    assert largest_outputs(NETWORK, PROBE, ["0"]) == (4 * 4, 32 * 4)
    assert forward_bytes(NETWORK, PROBE) == LIVE * 32 * 4
    assert not any(module._forward_hooks for module in NETWORK.modules())


def test_as_many_inputs_go_at_once_as_memory_is_kept_for() -> None:
    assert inputs_kept(NETWORK, PROBE) == KEPT_BYTES // (32 * 4)
    assert inputs_kept(NETWORK, PROBE.to("meta")) is None
    assert inputs_kept(nn.Upsample(scale_factor=KEPT_BYTES // 4), PROBE[:1, None]) == FEWEST  # four times as much
    seen: list[tuple[int, list[str]]] = []

    def call(x: torch.Tensor, ids: list[str]) -> torch.Tensor:
        seen.append((len(x), ids))
        return 2 * x

    x = torch.rand(5, 4)
    torch.testing.assert_close(in_pieces(call, 3, x, list("abcde")), 2 * x, rtol=0, atol=0)
    assert seen == [(3, list("abc")), (2, list("de"))]
    assert in_pieces(call, None, x, list("abcde")).shape == x.shape
    assert seen[-1] == (5, list("abcde"))


def test_a_graph_keeps_the_inputs_of_its_layers_and_parameters_do_not_count() -> None:
    with saved_for_backward(NETWORK) as saved:
        NETWORK(PROBE)
    assert sum(saved.values()) == 2 * 4 * (4 + 32 + 8)


@pytest.mark.parametrize("images", range(1, 12))
@pytest.mark.parametrize("step", [1, 2, 3, 5, None])
def test_slices_are_about_equal_and_none_stands_alone(images: int, step: int | None) -> None:
    slices = even_slices(images, step)
    sizes = [part.stop - part.start for part in slices]
    assert [row for part in slices for row in range(images)[part]] == list(range(images))
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= min(2, images)
    assert max(sizes) <= max(step or images, 3)
