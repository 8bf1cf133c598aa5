"""The negative log-likelihood that a scorer gives with labels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from regrad import Classifier, Scorer, UsageError
from tests.networks import SIZE, build


def test_nll_is_the_cross_entropy_of_the_label() -> None:
    classifier = Classifier(build("BatchNorm CNN", torch.float32), SIZE, mean=0.4, std=0.3)
    images, ids = torch.rand(7, 3, SIZE, SIZE), [f"image-{number}" for number in range(7)]
    labels = [0, 3, None, 1, -1, classifier.num_classes, 2]
    scorer = Scorer(classifier, ("entropy",))
    nll = scorer(images, ids, labels)["nll"]
    logits = classifier.network(classifier.normalize(images)).double()
    for place in (0, 1, 3, 6):
        expected = nn.functional.cross_entropy(logits[place : place + 1], torch.tensor([labels[place]]))
        assert nll[place].item() == pytest.approx(expected.item(), rel=1e-6)
    assert nll[[2, 4, 5]].isnan().all()
    assert scorer(images[:1], ids[:1], labels[:1])["nll"].item() == pytest.approx(nll[0].item(), rel=1e-6)
    assert "nll" not in scorer(images, ids)
    assert scorer(images[:0], [], [])["nll"].shape == (0,)
    with pytest.raises(UsageError, match="3 labels for 7 images"):
        scorer(images, ids, [1, 2, 3])


def test_nll_of_a_label_without_a_probability_is_finite() -> None:
    """In log space: e^-800 is zero in float64, and its logarithm would be infinite."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 2))
    with torch.no_grad():
        network[1].weight.zero_()
        network[1].bias.copy_(torch.tensor([400.0, -400.0]))
    images, ids = torch.rand(2, 3, SIZE, SIZE), ["a", "b"]
    columns = Scorer(Classifier(network, SIZE, mean=0.4, std=0.3), ("entropy",))(images, ids, [1, 0])
    assert columns["nll"].tolist() == [800.0, 0.0]
