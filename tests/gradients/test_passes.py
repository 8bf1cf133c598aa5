"""Kinds of norms from as few passes as there are sets of copies, whatever the engine."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from regrad.gradients.layers import find_layers, layer_weights
from regrad.gradients.passes import ENGINES, GradientSettings, Passes
from regrad.gradients.reference import ReferenceEngine
from regrad.network.copies import private_copy
from regrad.scores import Norms
from tests.networks import build, copies

KINDS = (
    Norms(smoothed=True, decayed=True),
    Norms(smoothed=False, decayed=True),
    Norms(smoothed=False, decayed=False),
    Norms(smoothed=False, decayed=False, target="uniform"),
)
X = copies(images=3, number=4)


def _copies(smoothed: bool, part: slice) -> Tensor:
    return X[part] if smoothed else X[part, :1]


def _passes(engine: str, name: str = "BatchNorm CNN", **settings: Any) -> Passes:
    chosen = {"samples": 3, "depth_decay": 0.3, "tolerance": 0.0, "layers": "modules", "directions": 2000, "seed": 0}
    return Passes(build(name), KINDS, X[:, 0], GradientSettings(engine=engine, **chosen | settings), torch.float64)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_kind_is_what_its_words_say(engine: str) -> None:
    passes = _passes(engine)
    norms, logits = passes(_copies, len(X))
    assert len(passes._runs) == 2
    assert {smoothed: tuple(value.shape) for smoothed, value in logits.items()} == {True: (3, 4, 5), False: (3, 1, 5)}
    network = private_copy(build("BatchNorm CNN"))
    layers = find_layers(network, X[:, 0])
    rtol = 0.2 if engine == "sketch" else 1e-9  # five times sqrt(2/k) of a squared norm is 0.16
    for kind in KINDS:
        weights = layer_weights(layers, 0.3 if kind.decayed else 0.0)
        reference = ReferenceEngine(private_copy(network), layers, weights)
        x = _copies(kind.smoothed, slice(None))
        if kind.target is None:
            wanted = reference(x).squared
        else:
            wanted = reference(x, lambda log_p: torch.full_like(log_p, 0.2)[:, None], classes=False).squared
        torch.testing.assert_close(norms[kind].squared, wanted, rtol=rtol, atol=0)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_small_memory_cuts_the_batch_and_changes_nothing(engine: str) -> None:
    passes = _passes(engine, directions=4)
    whole, _ = passes(_copies, len(X))
    passes.plan_memory(1, 128)
    assert [run.step for run in passes._runs] == [1, 1]
    parts, _ = passes(_copies, len(X))
    for kind in KINDS:
        torch.testing.assert_close(parts[kind].squared, whole[kind].squared, rtol=1e-9, atol=0)


def test_a_reference_is_never_coarser_and_the_others_are_as_asked() -> None:
    for engine, dtype in (("exact", torch.bfloat16), ("sketch", torch.bfloat16), ("reference", torch.float64)):
        settings = GradientSettings(3, 0.3, engine, 0.0, "modules", 2, 0)
        passes = Passes(build("BatchNorm CNN", torch.float32), KINDS, X[:, 0].float(), settings, torch.bfloat16)
        networks = [run.engine.network for run in passes._runs]  # type: ignore[attr-defined]
        assert {value.dtype for network in networks for value in network.parameters()} == {dtype}
