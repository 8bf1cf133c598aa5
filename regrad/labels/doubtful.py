"""The doubtful labels of a run: how many there are, which classes are taken for which, and a list to check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from regrad import storage, table
from regrad.formatting import class_name, count, percent
from regrad.metrics.confident import SelfConfidence, contradicted
from regrad.metrics.wilson import share_interval
from regrad.runs.scored import Run, floats, integers, judged
from regrad.runs.sift import IMAGE, Best
from regrad.runs.survey import Survey

LISTED = 100_000  # images that are listed at most
PAIRS = 50  # of a label and a prediction, the most frequent ones
SCHEMA = pa.schema([*IMAGE, ("self_confidence", pa.float64()), ("score", pa.float64())])
SHEET = "doubtful"


class Doubts:
    """How many labels of a run the network contradicts, and as many rows: those whose label is least probable.

    Confident learning counts (:func:`regrad.metrics.confident.contradicted`); which ones they are, self-confidence p_y
    tells better than the thresholds that count them, among all images that are predicted otherwise. A watcher of
    :func:`regrad.runs.sift.sift`. Memory: the rows that are listed.

    Args:
        run: the run that is sifted.
        surveys: whose labelled images say how sure the network is of each class.
        listed: how many rows are kept at most.

    Source: cleanlab's ``low_self_confidence``, see docs/labels.md for what else was tried.
    """

    columns: Sequence[str] = ("nll",)

    def __init__(self, run: Run, surveys: Sequence[Survey], listed: int = LISTED):
        self._classes = run.model["classes"]
        self._thresholds = SelfConfidence.thresholds([survey.own for survey in surveys])
        self._labelled = self._doubtful = 0
        self._best = Best(listed)

    def offer(self, rows: pa.Table, shown: pa.Table) -> None:
        """See :class:`regrad.runs.sift.Watcher`."""
        predictions = integers(rows["prediction"])
        known = judged(rows, self._classes)[0] & (predictions >= 0) & (predictions < self._classes)
        labels, predictions = integers(rows["label"]), np.where(known, predictions, 0)
        counted = known & contradicted(labels, predictions, floats(rows["confidence"]), self._thresholds)
        self._labelled += int(known.sum())
        self._doubtful += int(counted.sum())
        own = np.exp(-floats(rows["nll"]))
        self._best.offer(
            shown.append_column("self_confidence", pa.array(own)), own, known & (labels != predictions) & ~np.isnan(own)
        )

    @property
    def share(self) -> float | None:
        """Of the labelled images; None without."""
        return self._doubtful / self._labelled if self._labelled else None

    def numbers(self) -> dict[str, Any] | None:
        """``labelled`` and ``doubtful`` images, their ``share`` with its ``interval``, how many are ``listed``, and
        ``pairs`` of the listed: ``images`` of a ``label`` and a ``prediction``, the most frequent first.

        None without a label.
        """
        if not self._labelled:
            return None
        listed = self._list()
        pairs = Counter(zip(listed["label"].to_pylist(), listed["prediction"].to_pylist(), strict=True))
        ordered = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
        return {
            "labelled": self._labelled,
            "doubtful": self._doubtful,
            "share": self.share,
            "interval": share_interval(self._doubtful, self._labelled),
            "listed": len(listed),
            "pairs": [
                {"label": label, "prediction": prediction, "images": images}
                for (label, prediction), images in ordered[:PAIRS]
            ],
        }

    def rows(self, count: int) -> list[dict[str, Any]]:
        """The first ``count`` rows as dictionaries, the least probable label first."""
        return self._list().slice(0, count).to_pylist()

    def write(self, output: str) -> None:
        """Write the list to ``OUT/doubtful.csv`` and ``OUT/doubtful.parquet``; without a label, remove what is there.

        Raises:
            RegradError: the storage refused or failed.
        """
        if self._labelled:
            table.write_list(storage.join(output, SHEET), self._list().select(SCHEMA.names).cast(SCHEMA))
            return
        remove_list(output)

    def _list(self) -> pa.Table:
        rows = self._best.table
        return SCHEMA.empty_table() if rows is None else rows.slice(0, self._doubtful)


def remove_list(output: str) -> None:
    """Remove the list that an earlier run has left in ``output``, if there is one.

    Raises:
        RegradError: the storage refused or failed.
    """
    for suffix in (".csv", ".parquet"):
        storage.remove(f"{storage.join(output, SHEET)}{suffix}")


def named_pairs(numbers: Mapping[str, Any] | None, names: Sequence[str] | None) -> list[tuple[str, str, int]]:
    """Label, prediction and number of images of the ``pairs`` of :meth:`Doubts.numbers`, classes by their names."""
    pairs = numbers["pairs"] if numbers else ()
    return [(class_name(pair["label"], names), class_name(pair["prediction"], names), pair["images"]) for pair in pairs]


def doubts_in_words(numbers: Mapping[str, Any] | None) -> list[str]:
    """A sentence about :meth:`Doubts.numbers`; none where there is nothing to check."""
    if not numbers or not numbers["doubtful"]:
        return []
    labels, share = count(numbers["labelled"], "label"), percent(numbers["share"])
    return [
        f"The network contradicts {numbers['doubtful']:,} of {labels} ({share}): doubtful.csv lists them, the most "
        "doubtful first."
    ]
