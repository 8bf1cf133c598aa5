"""Confident learning: which labels a classifier contradicts, judged by how sure it is of each class elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from regrad.metrics.arrays import BoolArray, FloatArray

TOLERANCE = 1e-6  # confidences are kept in float32

Classes = npt.NDArray[np.int64]


class SelfConfidence:
    """t_j = mean of p_j over the images that are labelled j, from sums: memory does not grow with the images.

    Args:
        classes: how many the classifier has.
    """

    def __init__(self, classes: int):
        self._sums = np.zeros(classes)
        self._images = np.zeros(classes, np.int64)

    def add(self, labels: Classes, own: FloatArray) -> None:
        """Count images by their labels (n,) and the probabilities of these, ``own`` (n,); a NaN counts as no image."""
        labels, own = labels[~np.isnan(own)], own[~np.isnan(own)]
        self._sums += np.bincount(labels, own, self._sums.size)
        self._images += np.bincount(labels, minlength=self._images.size)

    @staticmethod
    def thresholds(parts: Sequence[SelfConfidence]) -> FloatArray:
        """(C,) t_j of the images of all ``parts`` together, infinite for a class that no image is labelled with."""
        images = np.sum([part._images for part in parts], axis=0)
        sums = np.sum([part._sums for part in parts], axis=0)
        return np.where(images, sums / np.maximum(images, 1), np.inf)


def contradicted(labels: Classes, predictions: Classes, confidence: FloatArray, thresholds: FloatArray) -> BoolArray:
    """(n,) k != y and p_k >= t_k, k = argmax_j p_j: the network predicts another class than the label, and is as sure
    of it as it is, on average, of the images that have it for their label.

    Confident learning takes the largest p_j among all j with p_j >= t_j, of which k is the largest if it is one. So
    what is counted here are the images off the diagonal of the confident joint but those whose predicted class is
    below its own threshold while another, less probable class is above its own.

    Args:
        labels: y, (n,).
        predictions: k, (n,).
        confidence: p_k, (n,).
        thresholds: t, (C,), see :class:`SelfConfidence`.

    Source: Northcutt, Jiang and Chuang, Confident Learning, JAIR 2021, Equations 1 and 2; as cleanlab does it where
    the probabilities of all classes are too many to be held.
    """
    verdict: BoolArray = (predictions != labels) & (confidence >= thresholds[predictions] - TOLERANCE)
    return verdict
