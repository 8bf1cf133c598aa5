"""How large the prediction sets of a run are, and how many of them hold their image's label."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from regrad.metrics.wilson import share_interval
from regrad.runs.scored import Bools, Ints


class SetSizes:
    """Counts of prediction sets by size, and of labelled ones that hold the label.

    Args:
        coverage: what the sets were asked for.
        classes: of the model.
    """

    def __init__(self, coverage: float, classes: int):
        self.coverage = coverage
        self._sizes = np.zeros(classes + 1, np.int64)
        self._labelled = self._covered = 0

    def add(self, sets: pa.ChunkedArray, labels: Ints, labelled: Bools) -> None:
        """Count the sets, (n,) lists of classes, of images with these ``labels`` (n,), where ``labelled`` (n,)."""
        lists = pa.concat_arrays(sets.chunks) if sets.num_chunks else pa.array([], sets.type)
        self._sizes += np.bincount(pc.list_value_length(lists).to_numpy(), minlength=self._sizes.size)
        owners, classes = pc.list_parent_indices(lists).to_numpy(), lists.flatten().to_numpy()
        self._labelled += int(labelled.sum())
        self._covered += int((classes == labels[owners]).sum())  # a set has a class once, and no label that is none

    def numbers(self) -> dict[str, Any]:
        """``coverage`` as asked for, ``mean_size``, and the shares of sets ``empty`` and of a ``single`` class."""
        images = max(int(self._sizes.sum()), 1)
        return {
            "coverage": self.coverage,
            "mean_size": float(self._sizes @ np.arange(self._sizes.size)) / images,
            "empty": int(self._sizes[0]) / images,
            "single": int(self._sizes[1]) / images,
        }

    def covered(self) -> dict[str, Any] | None:
        """``share`` of the ``labelled`` images whose set holds the label, and its ``interval``; None without labels."""
        if not self._labelled:
            return None
        return {
            "share": self._covered / self._labelled,
            "interval": share_interval(self._covered, self._labelled),
            "labelled": self._labelled,
        }
