"""Kinds of norms from as few passes as there are sets of copies, whatever the engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from regrad.errors import UsageError
from regrad.gradients import exact
from regrad.gradients.layers import find_layers, layer_weights
from regrad.gradients.passes import ENGINES, GradientSettings, Passes
from regrad.gradients.reference import ReferenceEngine
from regrad.network.copies import private_copy
from regrad.scores import Norms
from tests.networks import NETWORKS, build, copies
from tests.pretended import pretended_gpu

KINDS = (
    Norms(smoothed=True, decayed=True),
    Norms(smoothed=False, decayed=True),
    Norms(smoothed=False, decayed=False),
    Norms(smoothed=False, decayed=False, target="uniform"),
    Norms(smoothed=False, decayed=True, target="contrast"),
)
X = copies(images=3, number=4)


def _copies(smoothed: bool, part: slice) -> Tensor:
    return X[part] if smoothed else X[part, :1]


def _passes(engine: str, name: str = "BatchNorm CNN", **settings: Any) -> Passes:
    chosen = {"samples": 3, "depth_decay": 0.3, "tolerance": 0.0, "layers": "modules", "directions": 2000, "seed": 0}
    return Passes(build(name), KINDS, X[:, 0], GradientSettings(engine=engine, **chosen | settings), torch.float64)


def _contrasts(weights: Tensor) -> Tensor:
    """||a * grad (z_c - z_y)||^2 of the clean images, (1, B, C), by autograd of each difference."""
    network = build("BatchNorm CNN").requires_grad_(True)
    layers = find_layers(private_copy(network), X[:, 0])
    modules = dict(network.named_modules())
    own = [[getattr(modules[layer.name], key) for key in layer.parameters] for layer in layers]
    parameters, rows = [value for group in own for value in group], []
    for z in network(X[:, 0]):
        for difference in z - z.max():
            gradients = iter(torch.autograd.grad(difference, parameters, retain_graph=True))
            rows.append([float(sum(next(gradients).square().sum() for _ in group)) for group in own])
    return (torch.tensor(rows, dtype=torch.float64) @ weights.square().double()).reshape(1, len(X), -1)


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
        elif kind.target == "contrast":
            wanted = _contrasts(weights)
        else:
            wanted = reference(x, lambda log_p: torch.full_like(log_p, 0.2)[:, None], classes=False).squared
        torch.testing.assert_close(norms[kind].squared, wanted, rtol=rtol, atol=1e-12 * float(wanted.max()))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_small_memory_cuts_the_batch_and_changes_nothing(engine: str) -> None:
    passes = _passes(engine, directions=4)
    whole, _ = passes(_copies, len(X))
    passes.plan_memory(1, 128)
    assert [run.step for run in passes._runs] == [1, 1]
    parts, _ = passes(_copies, len(X))
    for kind in KINDS:
        atol = 1e-12 * float(whole[kind].squared.max())  # of a class against itself there is rounding
        torch.testing.assert_close(parts[kind].squared, whole[kind].squared, rtol=1e-9, atol=atol)


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("name", NETWORKS)
def test_pieces_side_by_side_give_what_one_after_another_gives(name: str) -> None:
    many = copies(images=9, number=4)
    passes = _passes("exact", name)
    alone, logits = passes(lambda smoothed, part: many[part] if smoothed else many[part, :1], len(many))
    passes.plan_memory(1 << 40, 128)
    assert [len(run.twins) for run in passes._runs] == [2, 2]
    for _ in range(3):
        found, again = passes(lambda smoothed, part: many[part] if smoothed else many[part, :1], len(many))
        for kind in KINDS:
            torch.testing.assert_close(found[kind].squared, alone[kind].squared, rtol=1e-9, atol=1e-20)
        for smoothed, value in logits.items():
            torch.testing.assert_close(again[smoothed], value, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("three_threads")
def test_twins_have_the_weights_in_the_same_memory_and_networks_of_their_own() -> None:
    passes = _passes("exact", "unknown layer")
    passes.plan_memory(1 << 40, 128)
    for run in passes._runs:
        engines = [run.engine, *run.twins]
        places = [{value.data_ptr() for value in engine.network.parameters()} for engine in engines]  # type: ignore[attr-defined]
        assert places[0] == places[1] == places[2] != set()
        modules = [id(module) for engine in engines for module in engine.network.modules()]  # type: ignore[attr-defined]
        assert len(modules) == len(set(modules))
        for engine in engines:
            own = set(engine.network.modules())  # type: ignore[attr-defined]
            assert {item.module for item in engine._watched} <= own  # type: ignore[attr-defined]
            assert engine.without_rule == run.engine.without_rule != ()
    # As many as have two images each: four copies of them, of 128 inputs or of 20.
    passes.plan_memory(1 << 40, 20)
    assert [(len(run.twins), run.step) for run in passes._runs] == [(1, 2), (2, 6)]


def test_what_memory_the_images_leave_is_for_classes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pretended_gpu(monkeypatch):
        settings = GradientSettings(3, 0.3, "exact", 0.0, "modules", 2, 0)
        passes = Passes(build("BatchNorm CNN"), KINDS[:1], X[:, 0].to("cuda"), settings, torch.float64)
        (run,) = passes._runs
        engine = run.engine
        assert isinstance(engine, exact.ExactEngine)
        least, further = 4 * engine.bytes_per_input, 4 * engine._costs.further  # of an image with its copies
        whole, _ = passes(lambda smoothed, part: X[part].to("cuda"), len(X))
        for memory, step, at_once in (
            (0, 1, (1, 1)),
            (3 * least, 3, (5, 1)),
            (3 * (least + further), 3, (5, 2)),
            (3 * (least + 4 * further), 5, (5, 5)),
        ):
            passes.plan_memory(memory, 128)
            assert run.step is not None
            assert run.step >= step
            assert (engine.targets_at_once(4), engine.targets_at_once(12)) == at_once
            assert passes.planned_bytes(3) <= max(memory, least)
            parts, _ = passes(lambda smoothed, part: X[part].to("cuda"), len(X))
            torch.testing.assert_close(parts[KINDS[0]].squared, whole[KINDS[0]].squared, rtol=1e-9, atol=0)


def test_why_classes_go_one_at_a_time_is_in_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = GradientSettings(1, 0.3, "exact", 0.0, "modules", 2, 0)
    with pretended_gpu(monkeypatch):
        passes = Passes(build("timm ViT"), KINDS[:1], X[:, 0].to("cuda"), settings, torch.float64)
    assert passes.plan["why"].count("one class at a time: PyTorch has no batching rule for aten::_scaled_dot") == 1
    passes = Passes(build("timm ViT"), KINDS[:1], X[:, 0], settings, torch.float64)
    assert "one class at a time" not in passes.plan["why"]


@pytest.mark.usefixtures("three_threads")
def test_a_network_that_cannot_be_copied_once_more_goes_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = _passes("exact")

    def failing(*_: Any) -> None:
        raise UsageError("cannot be copied")

    monkeypatch.setattr(exact, "private_copy", failing)
    passes.plan_memory(1 << 40, 128)
    assert [len(run.twins) for run in passes._runs] == [0, 0]
    passes(_copies, len(X))


def test_a_reference_is_never_coarser_and_the_others_are_as_asked() -> None:
    for engine, dtype in (("exact", torch.bfloat16), ("sketch", torch.bfloat16), ("reference", torch.float64)):
        settings = GradientSettings(3, 0.3, engine, 0.0, "modules", 2, 0)
        passes = Passes(build("BatchNorm CNN", torch.float32), KINDS, X[:, 0].float(), settings, torch.bfloat16)
        networks = [run.engine.network for run in passes._runs]  # type: ignore[attr-defined]
        assert {value.dtype for network in networks for value in network.parameters()} == {dtype}
