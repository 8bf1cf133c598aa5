"""Statistics of training features: the same whatever the batches, with a sample of what is too much to keep."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from regrad import UsageError
from regrad.network.head import Head
from regrad.scores import statistics
from regrad.scores.statistics import FeatureStatistics, fit_statistics
from tests.networks import build, copies

CPU = torch.device("cpu")


def data(count: int = 40) -> tuple[Tensor, Tensor]:
    return copies(count)[:, 0], torch.arange(count) % 3


def test_batches_do_not_matter() -> None:
    images, labels = data()
    network = build("BatchNorm CNN")
    whole = fit_statistics(network, [(images, labels)], CPU)
    parts = fit_statistics(network, zip(images.split(7), labels.split(7), strict=True), CPU)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-9, atol=1e-12)


def test_they_are_the_moments_of_the_features() -> None:
    images, labels = data()
    network = build("BatchNorm CNN")
    seen: list[Tensor] = []
    handle = network.fc.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        network(images)
    handle.remove()
    (h,) = seen
    made = FeatureStatistics(fit_statistics(network, [(images, labels)], CPU), Head(network.fc.weight.double(), None))
    torch.testing.assert_close(made.mean, h.mean(0))
    torch.testing.assert_close(made.class_means, torch.stack([h[labels == c].mean(0) for c in range(3)]))
    torch.testing.assert_close(made.second_moment(made.mean), torch.cov(h.T, correction=0), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(made.sample.sort(0).values, h.sort(0).values, rtol=1e-6, atol=1e-7)


def test_what_is_made_of_them_is_made_once() -> None:
    images, labels = data(5)
    network, calls = build("BatchNorm CNN"), list[FeatureStatistics]()
    made = FeatureStatistics(fit_statistics(network, [(images, labels)], CPU), Head(network.fc.weight.double(), None))

    def images_of(known: FeatureStatistics) -> float:
        calls.append(known)
        return known.images

    assert (made.made(images_of), made.made(images_of), len(calls)) == (5.0, 5.0, 1)


def test_of_many_images_some_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "SAMPLE", 10)
    images, labels = data()
    network = build("BatchNorm CNN")
    state = fit_statistics(network, zip(images.split(8), labels.split(8), strict=True), CPU)
    every = fit_statistics(network, [(images[:8], labels[:8])], CPU)["sample"]
    assert state["sample"].shape == (10, every.shape[1])
    first = sum(bool((row == every).all(1).any()) for row in state["sample"])
    assert 0 < first < 8  # neither the first images nor the last alone
    assert float(state["counts"].sum()) == 40


def test_nothing_to_fit_on_is_refused() -> None:
    with pytest.raises(UsageError, match="holds no image"):
        fit_statistics(build("BatchNorm CNN"), [], CPU)
    with pytest.raises(UsageError, match="--fit-data: the logits of Sequential come from no Linear layer"):
        fit_statistics(nn.Sequential(build("BatchNorm CNN"), nn.Softplus()), [data(3)], CPU)
