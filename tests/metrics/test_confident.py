"""Confident learning against its formula, image by image, with the probabilities of all classes."""

from __future__ import annotations

import numpy as np
import pytest

from regrad.metrics.confident import SelfConfidence, contradicted

CLASSES = 6
RNG = np.random.default_rng(0)


def drawn(count: int = 800, wrong: float = 0.2, sharp: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a classifier that is right mostly, and labels of which a share is replaced."""
    true = RNG.integers(0, CLASSES - 1, count)  # no image of the last class
    z = RNG.normal(0, 1, (count, CLASSES)) + sharp * np.eye(CLASSES)[true]
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    labels = np.where(RNG.random(count) < wrong, RNG.integers(0, CLASSES - 1, count), true)
    return p, labels


def off_diagonal(p: np.ndarray, labels: np.ndarray) -> tuple[list[int], list[int]]:
    """The images off the diagonal of the confident joint, prediction and label differing, as the paper writes it down:
    all of them, and those whose confident class is the predicted one."""
    t = [p[labels == j, j].mean() if (labels == j).any() else np.inf for j in range(CLASSES)]
    every, predicted = [], []
    for image, (row, label) in enumerate(zip(p, labels, strict=True)):
        sure = [j for j in range(CLASSES) if row[j] >= t[j]]
        if not sure or row.argmax() == label:
            continue
        joint = max(sure, key=lambda j: row[j])
        if joint != label:
            every.append(image)
            if joint == row.argmax():
                predicted.append(image)
    return every, predicted


def listed(p: np.ndarray, labels: np.ndarray, *parts: slice) -> list[int]:
    halves = []
    for part in parts or (slice(None),):
        halves.append(SelfConfidence(CLASSES))
        halves[-1].add(labels[part], p[part][np.arange(len(labels[part])), labels[part]])
    thresholds = SelfConfidence.thresholds(halves)
    return np.flatnonzero(contradicted(labels, p.argmax(1), p.max(1), thresholds)).tolist()


@pytest.mark.parametrize("sharp", [1.0, 3.0, 6.0])
def test_it_is_the_published_formula_where_the_confident_class_is_predicted(sharp: float) -> None:
    p, labels = drawn(sharp=sharp)
    every, predicted = off_diagonal(p, labels)
    assert listed(p, labels) == predicted
    assert len(predicted) > 20
    assert len(every) - len(predicted) <= (0.2 if sharp == 1 else 0.02) * len(every)


def test_thresholds_are_of_all_parts_together() -> None:
    p, labels = drawn()
    assert listed(p, labels, slice(0, 100), slice(100, None)) == listed(p, labels)
    assert listed(p, labels, slice(0, 30)) != listed(p, labels)


def test_a_class_without_an_image_contradicts_nothing() -> None:
    held = SelfConfidence(3)
    held.add(np.array([0, 0, 1]), np.array([0.4, 0.6, np.nan]))
    thresholds = SelfConfidence.thresholds([held])
    assert thresholds.tolist() == [0.5, np.inf, np.inf]
    verdict = contradicted(np.array([1, 1, 0, 0]), np.array([0, 0, 2, 1]), np.array([0.5, 0.49, 1.0, 1.0]), thresholds)
    assert verdict.tolist() == [True, False, False, False]


def test_a_confidence_that_was_rounded_to_float32_still_reaches_its_own_threshold() -> None:
    held = SelfConfidence(2)
    held.add(np.zeros(3, np.int64), np.full(3, 0.7))
    assert np.float64(np.float32(0.7)) < 0.7
    rounded = np.array([0.7], np.float32).astype(np.float64)
    labels, predictions = np.array([1]), np.array([0])
    assert contradicted(labels, predictions, rounded, SelfConfidence.thresholds([held])).tolist() == [True]
