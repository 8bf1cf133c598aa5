"""Shards into memory, for training small networks and for the paper's tables: never for scoring."""

from __future__ import annotations

from collections.abc import Sequence
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


def load_images(
    inputs: Sequence[str], classifier: Classifier, limit: int | None = None, columns: Columns = DEFAULT_COLUMNS
) -> tuple[Tensor, Tensor]:
    """The [0, 1] images of all ``inputs`` and their labels, in order: (n, channels, H, W), int64 (n,).

    A missing label is -1.

    Raises:
        UsageError: an input is not there.
        RegradError: an image cannot be read or decoded: such data is to be mended, not skipped, before training.
    """
    columns = replace(columns, classes=Classes.of(classifier.num_classes, classifier.class_names))
    images: list[Tensor] = []
    labels: list[int] = []
    for source in list_sources(inputs, columns):
        for sample in source.open().rows():
            if limit is not None and len(images) == limit:
                break
            where = f"{storage.mask(source.uri)}: row {sample.row} ({sample.id})"
            if sample.image is None:
                raise RegradError(f"{where}: {sample.error}")
            try:
                images.append(decode.to_tensor(sample.image, classifier))
            except decode.BadImage as error:
                raise RegradError(f"{where}: {error}") from error
            labels.append(-1 if sample.label is None else sample.label)
    shape = (0, classifier.channels, *classifier.image_size)
    return torch.stack(images) if images else torch.zeros(shape), torch.tensor(labels, dtype=torch.int64)


def load_labelled(
    inputs: Sequence[str], classifier: Classifier, limit: int | None = None, columns: Columns = DEFAULT_COLUMNS
) -> tuple[Tensor, Tensor]:
    """As :func:`load_images`, of images that all have a class of ``classifier``.

    Raises:
        UsageError: an input is not there, holds no image, or labels are missing or no class.
        RegradError: see :func:`load_images`.
    """
    images, labels = load_images(inputs, classifier, limit, columns)
    outside = int(((labels < 0) | (labels >= classifier.num_classes)).sum())
    if outside or not len(images):
        raise UsageError(
            f"{', '.join(map(storage.mask, inputs))}: {outside} of {len(images)} labels are missing or outside "
            f"0..{classifier.num_classes - 1}"
        )
    return images, labels
