"""Scores of the last layer's input: the formulas where they have edges, and networks without such a layer."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from regrad import Classifier, Scorer, UsageError
from regrad.scores import SCORES, Features, Head, Inputs, Score

NAMES = [name for name, item in SCORES.items() if item.features and not item.fitted]
IDS = ["a", "b", "c"]


def inputs(h: Tensor, weight: Tensor, bias: Tensor | None = None) -> Inputs:
    head = Head(weight, bias)
    return Inputs(head(h), features=h, head=head)


def random(*sizes: int) -> Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(sum(sizes)), dtype=torch.float64)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("h", [torch.zeros(2, 9, dtype=torch.float64), -random(2, 9).abs(), 1e4 * random(2, 9).abs()])
@pytest.mark.parametrize("weight", [random(4, 9), torch.ones(4, 9, dtype=torch.float64)])
def test_no_features_and_no_weights_give_a_number_that_is_none(name: str, h: Tensor, weight: Tensor) -> None:
    """All zero, as dead units are; all negative; large; and classes with the same weights, which have no boundary."""
    assert bool(SCORES[name].compute(inputs(h, weight, random(4))).isfinite().all())


def test_activations_are_shaped_by_hand() -> None:
    """h = 1 .. 20 and W = 1: the largest tenth is 19 and 20, the largest 15 % are 18, 19 and 20, of the sum 210."""
    h, weight = torch.arange(1.0, 21, dtype=torch.float64)[None], torch.ones(1, 20, dtype=torch.float64)
    given = inputs(h, weight, torch.tensor([0.5], dtype=torch.float64))
    assert float(SCORES["ash"].compute(given)) == pytest.approx(-(39 * math.exp(210 / 39) + 0.5))
    assert float(SCORES["scale"].compute(given)) == pytest.approx(-(210 * math.exp(210 / 57) + 0.5))


def test_the_l1_norm_counts_the_bias_where_there_is_one() -> None:
    h, weight = random(3, 5), random(4, 5)
    with_bias = SCORES["exgrad_l1_last"].compute(inputs(h, weight, torch.zeros(4, dtype=torch.float64)))
    without = SCORES["exgrad_l1_last"].compute(inputs(h, weight))
    size = h.abs().sum(1)
    torch.testing.assert_close(with_bias / without, (size + 1) / size)


def _pooled(last: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    return nn.Sequential(*layers, last).eval()


def test_a_score_of_ones_own_gets_features_and_head(monkeypatch: pytest.MonkeyPatch) -> None:
    network, images = _pooled(nn.Identity()), torch.rand(3, 3, 8, 8)
    seen: list[Inputs] = []

    def own(given: Inputs) -> Tensor:
        """None. Source: a user's own module."""
        seen.append(given)
        return given.logits[:, 0]

    monkeypatch.setitem(SCORES, "own", Score("own", own, Features()))
    Scorer(Classifier(network, 8, mean=0.0, std=1.0), ("own", "regrad_layers", "entropy"))(images, IDS)
    ((h, head),) = [(given.features, given.head) for given in seen]
    assert h is not None
    assert head is not None
    with torch.no_grad():
        torch.testing.assert_close(h, network[:4](images).double(), rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(head(h), network(images).double(), rtol=1e-5, atol=1e-6)


def test_a_network_without_a_linear_head_is_told_so() -> None:
    network = _pooled(nn.Softplus())
    with pytest.raises(UsageError, match=r"ash, fdbd: made of the input of a last Linear layer, and the logits of Seq"):
        Scorer(Classifier(network, 8), ("ash", "entropy", "fdbd"))
    Scorer(Classifier(network, 8), ("entropy", "gen"))
