"""Hugging Face: an ``imagefolder``, which ``load_dataset("imagefolder", data_dir=...)`` reads.

Source: the ``datasets`` library's guide to creating an image dataset: ``metadata.jsonl`` beside the images, an object a
line, ``file_name`` a path below its folder; every other key is a column.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import IO

from regrad.handover.entries import About, Entry
from regrad.handover.forms import Add, Form
from regrad.handover.writing import finite_or_none, one_line, text_into


@contextlib.contextmanager
def metadata_listing(file: IO[bytes], about: About) -> Iterator[Add]:
    """``metadata.jsonl``: ``file_name, id, source, row, label, prediction, confidence`` and the score."""
    with text_into(file) as text:

        def add(entry: Entry) -> None:
            record = {
                "file_name": entry.place,
                "id": entry.id,
                "source": entry.source,
                "row": entry.row,
                "label": entry.label,
                "prediction": entry.predicted,
                "confidence": finite_or_none(entry.confidence, 7),
                about.score: finite_or_none(entry.score),
            }
            text.write(one_line(record) + "\n")

        yield add


HUGGING_FACE = Form("huggingface", "metadata.jsonl", metadata_listing)
