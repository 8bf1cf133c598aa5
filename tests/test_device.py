"""Scores on a device that is not the CPU: nothing is left behind there, and the host waits once a call.

Without a GPU a pretended one stands in (:mod:`tests.pretended`), which shows what goes where, not how fast.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from regrad import Classifier, Scorer
from regrad.benchmarks import contenders, tf32
from regrad.networks import resnet20_cifar10
from regrad.scores import SCORES
from regrad.scores.draws import posterior
from regrad.scores.statistics import fit_statistics
from tests.networks import SIZE, build
from tests.pretended import pretended_gpu

IDS = ["a", "b", "c", "d"]
LABELS = [0, 1, None, 2]
GRADIENTS = ("regrad", "regrad_layers", "exgrad", "negrad", "gradnorm")
OTHERS = ("perturb_x", "perturb_theta", "mc_aa", "inserted_dropout", "entropy", "energy")
NETWORKS = ("BatchNorm CNN", "torchvision ViT")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """So that a CPU takes the images in the pieces that a GPU takes: pieces of other sizes are rounded otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def classifier(name: str) -> Classifier:
    return Classifier(build(name, torch.float32), image_size=(SIZE, SIZE), mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    ("engine", "scores"), [("exact", (*GRADIENTS, *OTHERS)), ("sketch", GRADIENTS), ("reference", ("regrad", "negrad"))]
)
def test_scores_are_those_of_the_cpu(
    name: str, engine: str, scores: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    wanted = Scorer(classifier(name), scores, engine=engine, samples=2, device="cpu")(images, IDS, LABELS)
    with pretended_gpu(monkeypatch) as waits:
        scorer = Scorer(classifier(name), scores, engine=engine, samples=2, device="cuda")
        waits.clear()
        columns = scorer(images, IDS, LABELS)
        if engine != "reference":  # one number at a time is its definition
            assert waits == ["copy to the CPU"] * len(columns)
        error = scorer.measure_error(images, IDS)
    assert (error is None) == (engine == "reference")
    assert set(columns) == set(wanted)
    for column, value in columns.items():
        torch.testing.assert_close(value, wanted[column], rtol=1e-6, atol=0, equal_nan=True)


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_the_plan_is_that_of_the_cpu(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that is tried on products which PyTorch rounds, as it does unless told, differs from autograd."""
    torch.manual_seed(0)
    network, known = resnet20_cifar10()
    deep = Classifier(network.eval(), **known)
    wanted = Scorer(deep, ("exgrad",), engine="exact", tolerance=0, device="cpu").plan
    with pretended_gpu(monkeypatch):
        plan = Scorer(deep, ("exgrad",), engine="exact", tolerance=0, precision=precision, device="cuda").plan
    assert plan["without_rule"] == []
    assert plan == wanted


@pytest.mark.parametrize("scores", [("entropy",), ("exgrad",), ("perturb_theta", "react")])
def test_nothing_is_rounded_while_a_scorer_is_made(scores: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(12, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    state = fit_statistics(build(NETWORKS[0], torch.float32), [(images, torch.arange(12) % 3)], torch.device("cpu"))
    with pretended_gpu(monkeypatch):
        scorer = Scorer(classifier(NETWORKS[0]), scores, statistics=state, precision="tf32", device="cuda")
        monkeypatch.setattr(tf32, "rounded_factors", _refuse)
        Scorer(classifier(NETWORKS[0]), scores, statistics=state, precision="tf32", device="cuda")
        if "exgrad" in scores:  # what is asked for is done
            with pytest.raises(AssertionError, match="rounded"):
                scorer(images[:4], IDS)


def test_nothing_is_rounded_while_an_engine_is_made_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with pretended_gpu(monkeypatch):
        monkeypatch.setattr(tf32, "rounded_factors", _refuse)
        inputs = torch.rand(3, 3, SIZE, SIZE).to("cuda")
        contenders.engine("exact", precision="tf32")(build(NETWORKS[0], torch.float32), inputs, 1)


def _refuse(operation: object, arguments: object) -> None:
    raise AssertionError(f"{operation}: rounded")


@pytest.mark.parametrize("engine", ["exact", "sketch"])
def test_the_host_waits_for_no_class(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with pretended_gpu(monkeypatch) as waits:
        scorer = Scorer(classifier(NETWORKS[0]), ("regrad", "negrad"), engine=engine, samples=2, device="cuda")
        assert scorer._passes is not None
        on_device = images.to("cuda")
        waits.clear()
        norms, _ = scorer._passes(lambda smoothed, part: scorer._copies(on_device, IDS, smoothed, part), len(images))
        assert waits == []
        assert {found.squared.device.type for found in norms.values()} == {"cuda"}


def test_a_posterior_is_drawn_from_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(8, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    state = posterior.fit(build(NETWORKS[0], torch.float32), images, torch.arange(8) % 3)
    wanted = Scorer(classifier(NETWORKS[0]), ("laplace",), posterior=state, device="cpu")(images[:4], IDS)
    with pretended_gpu(monkeypatch):
        columns = Scorer(classifier(NETWORKS[0]), ("laplace",), posterior=state, device="cuda")(images[:4], IDS)
    torch.testing.assert_close(columns["laplace"], wanted["laplace"], rtol=1e-6, atol=0)


def test_features_are_set_against_training_data_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(12, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    names = [name for name, item in SCORES.items() if item.features]
    network, batches = build(NETWORKS[0], torch.float32), [(images, torch.arange(12) % 3)]
    state = fit_statistics(network, batches, torch.device("cpu"))
    wanted = Scorer(classifier(NETWORKS[0]), names, statistics=state, device="cpu")(images[:4], IDS)
    with pretended_gpu(monkeypatch):
        there = fit_statistics(network, batches, torch.device("cuda"))
        columns = Scorer(classifier(NETWORKS[0]), names, statistics=state, device="cuda")(images[:4], IDS)
    for name, value in state.items():
        torch.testing.assert_close(there[name], value, rtol=1e-5, atol=1e-6)
    for name in names:
        torch.testing.assert_close(columns[name], wanted[name], rtol=1e-4, atol=1e-6)


def test_a_mix_of_devices_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pretended_gpu(monkeypatch) as waits:
        here, there = torch.ones(3), torch.ones(3, device="cuda")
        assert there.device.type == "cuda"
        assert (there + 1).device == there.device
        assert here.to(there).device == there.device
        with pytest.raises(RuntimeError, match="on the CPU, others on the GPU"):
            here + there
        assert waits == []
        assert float(there.sum()) == 3
        assert len(waits) == 1
