"""Shards into memory, for training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from regrad import Classifier
from regrad.errors import RegradError, UsageError
from regrad.reading.memory import image_batches, labelled_batches, load_images, load_labelled
from tests.shards import digits, write_parquet, write_tar


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier.load("tests.shards:build")


def test_images_of_all_inputs_in_order(tmp_path: Path, classifier: Classifier) -> None:
    first, second = digits(5), digits(9)[5:]
    inputs = [write_parquet(tmp_path / "a.parquet", first), write_tar(tmp_path / "b.tar", second)]
    images, labels = load_images(inputs, classifier)
    assert images.shape == (9, 1, 8, 8)
    assert labels.tolist() == [label for *_, label in (*first, *second)]
    (alone, _) = load_images(inputs[1:], classifier)
    torch.testing.assert_close(images[5:], alone)
    assert float(images.min()) >= 0
    assert float(images.max()) <= 1
    limited, _ = load_images(inputs, classifier, limit=7)
    torch.testing.assert_close(limited, images[:7])


def test_what_cannot_be_read_or_decoded_is_named(tmp_path: Path, classifier: Classifier) -> None:
    rows = [*digits(2), ("broken", b"\x89PNG\r\n\x1a\nno", 1)]
    with pytest.raises(RegradError, match=r"x\.parquet: row 2 \(broken\)"):
        load_images([write_parquet(tmp_path / "x.parquet", rows)], classifier)


def test_labels_that_are_missing_or_no_class_are_refused(tmp_path: Path, classifier: Classifier) -> None:
    rows = [(name, image, 99) for name, image, _ in digits(3)]
    source = write_parquet(tmp_path / "x.parquet", rows)
    with pytest.raises(UsageError, match=r"3 of 3 labels are missing or outside 0\.\.9"):
        load_labelled([source], classifier)
    images, labels = load_labelled([write_parquet(tmp_path / "y.parquet", digits(4))], classifier)
    assert len(images) == len(labels) == 4
    assert np.unique(labels).size > 1


def test_batches_hold_the_images_with_a_class_and_end_with_how_many_had_none(
    tmp_path: Path, classifier: Classifier
) -> None:
    rows = [(name, image, 99 if place % 3 == 0 else label) for place, (name, image, label) in enumerate(digits(7))]
    batches = labelled_batches([write_parquet(tmp_path / "x.parquet", rows)], classifier)
    images, labels = next(batches)
    assert labels.tolist() == [label for *_, label in rows if label != 99]
    assert len(images) == 4
    with pytest.raises(UsageError, match=r"3 of 7 labels are missing or outside 0\.\.9"):
        next(batches)


def test_many_images_come_a_few_at_a_time(tmp_path: Path, classifier: Classifier) -> None:
    source = write_parquet(tmp_path / "x.parquet", digits(10))
    sizes = [len(images) for images, _ in image_batches([source], classifier, limit=8, size=3)]
    assert sizes == [3, 3, 2]
