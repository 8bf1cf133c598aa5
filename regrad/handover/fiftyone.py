"""FiftyOne: a ``FiftyOneImageClassificationDataset``, a folder of images with ``labels.json``.

Source: FiftyOne's guide to loading datasets from disk, and its importer: the keys of ``labels`` are the paths of images
below ``data/`` without their endings, or absolute paths; a target is null, a class's number, or an object of ``label``,
``confidence`` and ``attributes``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import IO, Any

from regrad import storage
from regrad.handover.entries import About, Entry
from regrad.handover.forms import PREDICTION, Add, Form, Returned, still_predicted
from regrad.handover.writing import finite_or_none, growing, one_line, text_into


@contextlib.contextmanager
def labels_listing(file: IO[bytes], about: About) -> Iterator[Add]:
    """``labels.json``: the prediction as a classification with its confidence, itself and the score as attributes."""
    begin = f'{{"classes": {one_line(about.classes)},\n"labels": {{'
    with text_into(file) as text, growing(text, begin, "}}\n") as write:

        def add(entry: Entry) -> None:
            target = {
                "label": entry.prediction,
                "confidence": finite_or_none(entry.confidence, 7),
                "attributes": {PREDICTION: entry.predicted, about.score: finite_or_none(entry.score)},
            }
            write(f"{one_line(entry.stem if entry.copied else entry.place)}: {one_line(target)}")

        yield add


def read_fiftyone(document: Any) -> list[Returned] | None:
    """What ``labels.json`` says, as FiftyOne exports it; None where ``document`` is none.

    A target with a confidence is a prediction, and no label, unless it is another than was predicted.
    """
    if not (isinstance(document, Mapping) and isinstance(document.get("labels"), Mapping)):
        return None
    classes = document.get("classes")
    returned = []
    for file, target in document["labels"].items():
        targets = [each for each in (target if isinstance(target, list) else [target]) if each is not None]
        names = [_name(each, classes) for each in targets]
        told = [(not _is_prediction(each, name), name) for each, name in zip(targets, names, strict=True)]
        returned += [Returned(None, None, file, labelled, name, not labelled) for labelled, name in told]
        if not told:
            returned.append(Returned(None, None, file, False))
    return returned


def _is_prediction(target: Any, name: str | None) -> bool:
    sure = isinstance(target, Mapping) and target.get("confidence") is not None
    return sure and still_predicted(target.get("attributes"), name, otherwise=True)


def _name(target: Any, classes: Any) -> str | None:
    label = target.get("label") if isinstance(target, Mapping) else target
    if isinstance(label, int) and isinstance(classes, list) and 0 <= label < len(classes):
        return str(classes[label])
    return None if label is None else str(label)


FIFTYONE = Form("fiftyone", "labels.json", labels_listing, images="data", refers=storage.is_path)
