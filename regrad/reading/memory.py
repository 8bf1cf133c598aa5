"""Shards into memory, for training small networks and for the paper's tables: never for scoring."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from regrad import storage
from regrad.classifier import Classifier
from regrad.errors import RegradError, UsageError
from regrad.reading import decode
from regrad.reading.inputs import list_sources
from regrad.reading.naming.classes import Classes
from regrad.reading.samples import DEFAULT_COLUMNS, Columns


def image_batches(
    inputs: Sequence[str],
    classifier: Classifier,
    limit: int | None = None,
    columns: Columns = DEFAULT_COLUMNS,
    size: int = 64,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The [0, 1] images of all ``inputs`` and their labels, in order and ``size`` at a time: (n, channels, H, W), and
    int64 (n,), -1 where there is none.

    Raises:
        UsageError: an input is not there.
        RegradError: an image cannot be read or decoded: such data is to be mended, not skipped, before training.
    """
    samples = itertools.islice(_samples(inputs, classifier, columns), limit)
    while several := list(itertools.islice(samples, size)):
        images, labels = zip(*several, strict=True)
        yield torch.stack(images), torch.tensor(labels, dtype=torch.int64)


def _samples(inputs: Sequence[str], classifier: Classifier, columns: Columns) -> Iterator[tuple[Tensor, int]]:
    columns = replace(columns, classes=Classes.of(classifier.num_classes, classifier.class_names))
    for source in list_sources(inputs, columns):
        for sample in source.open().rows():
            where = f"{storage.mask(source.uri)}: row {sample.row} ({sample.id})"
            if sample.image is None:
                raise RegradError(f"{where}: {sample.error}")
            try:
                image = decode.to_tensor(sample.image, classifier)
            except decode.BadImage as error:
                raise RegradError(f"{where}: {error}") from error
            yield image, -1 if sample.label is None else sample.label


def load_images(
    inputs: Sequence[str], classifier: Classifier, limit: int | None = None, columns: Columns = DEFAULT_COLUMNS
) -> tuple[Tensor, Tensor]:
    """All that :func:`image_batches` gives, which see, at once."""
    parts = list(image_batches(inputs, classifier, limit, columns))
    images = [image for image, _ in parts] or [torch.zeros(0, classifier.channels, *classifier.image_size)]
    return torch.cat(images), torch.cat([label for _, label in parts] or [torch.zeros(0, dtype=torch.int64)])


def labelled_batches(
    inputs: Sequence[str], classifier: Classifier, limit: int | None = None, columns: Columns = DEFAULT_COLUMNS
) -> Iterator[tuple[Tensor, Tensor]]:
    """As :func:`image_batches`, of images that have a class of ``classifier``; those without one are counted.

    Raises:
        UsageError: an input is not there or holds no image, or, at the end, labels were missing or no class.
        RegradError: see :func:`image_batches`.
    """
    outside = seen = 0
    for images, labels in image_batches(inputs, classifier, limit, columns):
        known = (labels >= 0) & (labels < classifier.num_classes)
        outside, seen = outside + int((~known).sum()), seen + len(labels)
        if known.any():
            yield images[known], labels[known]
    if outside or not seen:
        raise UsageError(
            f"{', '.join(map(storage.mask, inputs))}: {outside} of {seen} labels are missing or outside "
            f"0..{classifier.num_classes - 1}"
        )


def load_labelled(
    inputs: Sequence[str], classifier: Classifier, limit: int | None = None, columns: Columns = DEFAULT_COLUMNS
) -> tuple[Tensor, Tensor]:
    """All that :func:`labelled_batches` gives, which see, at once."""
    images, labels = zip(*labelled_batches(inputs, classifier, limit, columns), strict=True)  # or it has raised
    return torch.cat(images), torch.cat(labels)
