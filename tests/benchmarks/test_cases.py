"""What is timed: classifiers with other heads, and the copies that go through them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from regrad.benchmarks.cases import CASES, Case, copies_of, with_classes
from regrad.errors import UsageError
from tests.shards import digits, write_parquet

TINY = Case("tiny", "tests.shards:build", 3, samples=2)


def test_another_number_of_classes_is_another_head_alone() -> None:
    whole, many = TINY.classifier(), Case("tiny", "tests.shards:build", 3, classes=37).classifier()
    assert (whole.num_classes, many.num_classes) == (10, 37)
    own, other = whole.network.state_dict(), many.network.state_dict()
    assert own.keys() == other.keys()
    differing = {
        name for name in own if own[name].shape != other[name].shape or not torch.equal(own[name], other[name])
    }
    assert differing == {"head.weight", "head.bias"}
    assert "C = 37, N = 10, random weights, 3 images at once" in Case("tiny", "x:y", 3).describe(many)
    assert "N = 10, trained weights, 3 images at once" in Case("tiny", "x:y", 3, trained=True).describe(many)


@pytest.mark.parametrize("bias", [True, False])
def test_another_head_keeps_what_was_trained(bias: bool) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 6, bias=bias)).eval()
    inputs = torch.rand(5, 1, 2, 2)
    logits = network(inputs)
    torch.testing.assert_close(with_classes(network, 2, inputs[:2])(inputs), logits[:, :2])
    torch.testing.assert_close(with_classes(network, 9, inputs[:2])(inputs)[:, :6], logits)


def test_a_network_without_a_linear_head_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 8), nn.Flatten())
    with pytest.raises(UsageError, match="no Linear layer that could get 5 outputs"):
        with_classes(network, 5, torch.rand(2, 1, 8, 8))


@pytest.mark.parametrize("samples", [0, 1, 5, 100])
def test_other_copies_keep_the_number_of_inputs(samples: int) -> None:
    case = TINY.with_samples(samples)
    assert case.samples == samples
    assert case.batch >= 1
    assert case.batch * (samples + 1) <= max(TINY.batch * (TINY.samples + 1), samples + 1)


def test_copies_begin_with_the_clean_image(tmp_path: Path) -> None:
    classifier, device = TINY.classifier(), torch.device("cpu")
    blobs = copies_of(TINY, classifier, device)
    assert blobs.shape == (3, 3, 1, 8, 8)
    of_data = Case("tiny", "tests.shards:build", 3, 2, images=(write_parquet(tmp_path / "x.parquet", digits(9)),))
    copies = copies_of(of_data, classifier, device)
    assert copies.shape == (3, 3, 1, 8, 8)
    assert not torch.equal(copies, blobs)
    noise = copies[:, 1:] - copies[:, :1]
    assert 0.01 < float(noise.std()) < 0.03


def test_every_case_is_called_by_its_name() -> None:
    assert all(case.name == name for name, case in CASES.items())
