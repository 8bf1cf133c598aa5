"""CSV: a row an image, with an empty column for the label."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterator
from typing import IO

from regrad.handover.entries import About, Entry
from regrad.handover.forms import Add, Form, anywhere
from regrad.handover.writing import finite_or_none, text_into


@contextlib.contextmanager
def csv_listing(file: IO[bytes], about: About) -> Iterator[Add]:
    """``file, id, source, row, label, prediction, confidence`` and the score."""
    with text_into(file) as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["file", "id", "source", "row", "label", "prediction", "confidence", about.score])

        def add(entry: Entry) -> None:
            numbers = finite_or_none(entry.confidence, 7), finite_or_none(entry.score)
            writer.writerow([entry.place, entry.id, entry.source, entry.row, entry.label, entry.predicted, *numbers])

        yield add


CSV = Form("csv", "images.csv", csv_listing, refers=anywhere)
