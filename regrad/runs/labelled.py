"""The labelled rows of a run that kept its logits: as many as memory is to hold, the same ones every time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from regrad import storage
from regrad.errors import UsageError
from regrad.ledger.rows import Rows
from regrad.runs.pairs import hashes
from regrad.runs.scored import Ints, Run, judged

NUMBERS = 2**26  # logits that are held: 256 MiB; 67,108 images of a model of 1,000 classes

_SPARE = 1.25  # times as many rows are held at most
_LARGEST = 2**64 - 1  # key


@dataclass(frozen=True)
class LabelledRows:
    """Images with a label that is a class of the model.

    Attributes:
        logits: float32 (n, C).
        labels: (n,) classes.
        images: how many such images the run has; n, or more where they are too many to be held.
    """

    logits: npt.NDArray[np.float32]
    labels: Ints
    images: int


def read_labelled(run: Run, numbers: int = NUMBERS) -> LabelledRows:
    """The labelled images of ``run``, in an order that is as good as drawn at random: that of a hash of source and id.

    Args:
        numbers: how many logits to hold at most; of more, the first images in this order are taken.

    Raises:
        UsageError: the run kept no logits, or has no label that is a class of the model.
        RegradError: the storage refused or failed, or a file is damaged.
    """
    where, classes = storage.mask(run.output), run.model["classes"]
    rows = Rows(run.output)
    schema = rows.schema()
    if schema is None or "logits" not in schema.names:
        raise UsageError(f"{where}: the run kept no logits; score the images again with --logits")
    most = max(1, numbers // classes)
    best: list[pa.Table] = []
    images, last = 0, _LARGEST
    for some in rows.tables(["id", "source", "label", "prediction", "logits"]):
        known = some.filter(pa.array(judged(some, classes)[0]))
        images += len(known)
        best.append(_with_keys(known, last))
        if sum(map(len, best)) > _SPARE * most:
            best = [_first(best, most)]
            last = int(best[0]["key"][-1].as_py())
    if not images:
        raise UsageError(f"{where}: no image has a label that is one of the model's {classes} classes")
    first = _first(best, most)
    values = first["logits"].combine_chunks()
    logits = values.flatten().to_numpy(zero_copy_only=False).reshape(len(first), classes)
    return LabelledRows(logits, first["label"].to_numpy().astype(np.int64), images)


def _with_keys(rows: pa.Table, last: int) -> pa.Table:
    """``rows`` whose key is no larger than ``last``, with it."""
    keys = hashes(rows["source"], rows["id"]) if len(rows) else np.zeros(0, np.uint64)
    keyed = rows.select(["label", "logits"]).append_column("key", pa.array(keys))
    return keyed.filter(pa.array(keys <= np.uint64(last)))


def _first(tables: list[pa.Table], count: int) -> pa.Table:
    """The ``count`` rows with the smallest keys, smallest first."""
    rows = pa.concat_tables(tables)
    return rows.take(pa.array(np.argsort(rows["key"].to_numpy(), kind="stable")[:count]))
