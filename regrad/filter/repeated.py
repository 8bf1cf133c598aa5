"""The rule that drops what `regrad duplicates` found: of each cluster all images but the one that stands for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from regrad import storage, table
from regrad.errors import RegradError, UsageError
from regrad.runs.scored import Bools, Ints, Run, codes, integers

_COLUMNS = ("run", "source", "row", "kind", "representative")


class Repeated:
    """Drop the images of ``run`` that another one stands for, be it of this run or of one that was named before it.

    Args:
        found: the output of `regrad duplicates`.

    Raises:
        UsageError: there is none, or ``run`` was not among its runs.
        RegradError: the storage refused or failed, or a file is damaged.
    """

    def __init__(self, found: str, run: Run, score: str):
        where, name = storage.mask(found), storage.mask(run.output)
        numbers, rows = _read(found)
        runs = [each["run"] for each in numbers["runs"]]
        if name not in runs:
            raise UsageError(f"--drop-duplicates {where}: is of {', '.join(runs)}, not of {name}")
        self.text, self.score = f"duplicates by {where}", score
        self.columns: Sequence[str] = ("source", "row")
        own = rows.filter(pc.and_(pc.equal(rows["run"], name), pc.invert(rows["representative"])))
        places, sources = codes(own["source"])
        numbers_of, kinds = integers(own["row"]), np.array(own["kind"].to_pylist(), object)
        self._spare: dict[str, tuple[Ints, Any]] = {}
        for place, source in enumerate(sources):
            order = np.argsort(numbers_of[places == place])
            self._spare[source] = numbers_of[places == place][order], kinds[places == place][order]

    def drops(self, rows: pa.Table) -> tuple[Bools, pa.Array]:
        """See :class:`regrad.filter.rules.Rule`."""
        places, sources = codes(rows["source"])
        numbers = integers(rows["row"])
        mask, reasons = np.zeros(len(rows), bool), np.full(len(rows), f"not among {self.text}", object)
        for place, source in enumerate(sources):
            if source in self._spare:
                spare, kinds = self._spare[source]
                at = np.searchsorted(spare, numbers).clip(max=len(spare) - 1)
                there = (places == place) & (spare[at] == numbers)
                mask |= there
                reasons[there] = [f"{self.text}: {kind}" for kind in kinds[at[there]]]
        return mask, pa.array(reasons.tolist(), pa.string())


def _read(found: str) -> tuple[dict[str, Any], pa.Table]:
    try:
        numbers = json.loads(storage.read_bytes(storage.join(found, "duplicates.json")))
        content = storage.read_bytes(storage.join(found, "duplicates.parquet"))
        rows = pa.parquet.ParquetFile(table.in_memory(content)).read().select(_COLUMNS)
    except FileNotFoundError as error:
        raise UsageError(
            f"--drop-duplicates {storage.mask(found)}: no duplicates here; give the --output of regrad duplicates"
        ) from error
    except (pa.ArrowException, ValueError, KeyError) as error:
        raise RegradError(
            f"{storage.mask(found)}: not readable ({storage.reason(error)}); run regrad duplicates again"
        ) from error
    return numbers, rows
