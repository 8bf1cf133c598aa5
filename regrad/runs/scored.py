"""The scoring runs a report is about: what they are, whether they compare, and their rows as a stream."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from regrad import storage, table
from regrad.errors import RegradError, UsageError
from regrad.ledger import contents
from regrad.ledger.rows import Rows
from regrad.settings.columns import FIXED, SEVERAL, STANDARD_ERROR
from regrad.settings.scoring import FITTED, comparable

PREFERRED_SCORE = "regrad"
ID_NAME = "in-distribution"
REFERENCE_NAME = "reference"
NO_LABEL = -(2**31) - 1  # below every int32, so no label that a table can hold is taken for a missing one
ROWS_AT_ONCE = 2**18

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """One output of regrad score, under the name the report is to use; of some ``units`` alone, where they are told."""

    name: str
    output: str
    info: dict[str, Any]
    scores: tuple[str, ...]
    units: Collection[str] | None = None
    left_out: Mapping[str, Ints] = field(default_factory=dict)  # source -> rows that are not read

    @property
    def model(self) -> dict[str, Any]:
        """What ``run.json`` says of the model: spec, network, classes, class_names."""
        return {"spec": None, "network": "", "classes": None, "class_names": None} | self.info.get("model", {})

    @property
    def settings(self) -> dict[str, Any]:
        """What runs must share for their scores to mean the same: the network and how it was scored.

        The preprocessing may rightly differ: drawings of black on white, say, are inverted for a model of white on
        black.
        """
        plan = self.info.get("plan", {})
        own = {"network": self.model["network"][:12], **{name: plan.get(name) for name in FITTED}}
        return own | comparable(self.info.get("config", {}))

    @property
    def coverage(self) -> float | None:
        """What its prediction sets were asked for; None where it has none."""
        asked: float | None = self.info.get("config", {}).get("coverage")
        return asked

    def count_rows(self) -> int:
        """How many rows there are, by the ledger.

        Raises:
            RegradError: the storage refused or failed.
        """
        return Rows(self.output, units=self.units).count() - sum(map(len, self.left_out.values()))

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The rows, only ``columns``, a few hundred thousand at a time however small the files are.

        Raises:
            RegradError: the storage refused or failed, a file is damaged, or a unit was replaced meanwhile.
        """
        wanted = list(dict.fromkeys([*columns, *(("source", "row") if self.left_out else ())]))
        waiting: list[pa.Table] = []
        count = 0
        for rows in Rows(self.output, units=self.units).tables(wanted):
            waiting.append(rows)
            count += len(rows)
            if count >= ROWS_AT_ONCE:
                yield self.without_left_out(pa.concat_tables(waiting)).select(list(columns))
                waiting, count = [], 0
        if count:
            yield self.without_left_out(pa.concat_tables(waiting)).select(list(columns))

    def without_left_out(self, rows: pa.Table) -> pa.Table:
        """``rows``, which have ``source`` and ``row`` where any are left out, without these."""
        if not self.left_out:
            return rows
        places, names = codes(rows["source"])
        numbers, out = integers(rows["row"]), np.zeros(len(rows), bool)
        for place, name in enumerate(names):
            if name in self.left_out:
                out |= (places == place) & np.isin(numbers, self.left_out[name])
        return rows.filter(pa.array(~out))


def load_run(name: str, output: str) -> Run:
    """The run that regrad score wrote to ``output``, under the ``name`` the report is to use.

    Raises:
        UsageError: ``output`` holds no run, no rows, or no score.
        RegradError: the storage refused or failed.
    """
    info = table.read_run(output)
    schema = Rows(output).schema()
    if schema is None:
        where = storage.mask(output)
        if contents.committed(output):
            raise UsageError(f"{where}: the run scored no image; see {where}/quarantine")
        raise UsageError(f"{where}: no rows under scores/; has the scoring run finished?")
    names = [column for column in schema.names if column not in (*FIXED, *SEVERAL)]
    errors = {f"{column}{STANDARD_ERROR}" for column in names}
    run = Run(name, output, info, tuple(column for column in names if column not in errors))
    if not run.scores:
        raise UsageError(f"{storage.mask(output)}: the run has no score column; score it again with --scores")
    if run.model["classes"] is None:
        raise RegradError(f"{storage.mask(output)}/run.json: does not say how many classes the model has")
    return run


def common_scores(known: Run, others: Sequence[Run]) -> tuple[list[str], str]:
    """The scores that all runs have, in the order of ``known``, and the one that the report goes by.

    Raises:
        UsageError: two runs share a name, come from different models or settings, or have no score in common.
    """
    names = [run.name for run in (known, *others)]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two runs are called {name!r}: give each --ood set a name of its own")
    for run in others:
        for setting, value in known.settings.items():
            if run.settings[setting] != value:
                raise UsageError(
                    f"{storage.mask(run.output)}: scored with {setting} {run.settings[setting]}, the in-distribution "
                    f"run {storage.mask(known.output)} with {value}; score both alike"
                )
        if not set(known.scores) & set(run.scores):
            raise UsageError(
                f"{storage.mask(run.output)}: has the scores {', '.join(run.scores)}, the in-distribution run "
                f"{', '.join(known.scores)}; score both with a common one"
            )
    common = [name for name in known.scores if all(name in run.scores for run in others)]
    if not common:
        raise UsageError("no score is in every run; score all of them with a common one")
    return common, PREFERRED_SCORE if PREFERRED_SCORE in common else common[0]


def floats(column: pa.ChunkedArray) -> Floats:
    """(n,) values, NaN where there is none."""
    values: Floats = pc.fill_null(column.cast(pa.float64()), math.nan).to_numpy()
    return values


def integers(column: pa.ChunkedArray) -> Ints:
    """(n,) values, NO_LABEL where there is none."""
    values: Ints = pc.fill_null(column.cast(pa.int64()), NO_LABEL).to_numpy()
    return values


def judged(rows: pa.Table, classes: int) -> tuple[Bools, Bools]:
    """(n,) which images have a label that the model could have predicted, and (n,) which of them it did predict."""
    labels = integers(rows["label"])
    known: Bools = (labels >= 0) & (labels < classes)
    return known, known & (labels == integers(rows["prediction"]))


def codes(column: pa.ChunkedArray) -> tuple[Ints, list[str]]:
    """(n,) numbers of the distinct values of ``column``, and the values."""
    encoded = pc.dictionary_encode(column, null_encoding="encode").combine_chunks()
    array = encoded.chunk(0) if isinstance(encoded, pa.ChunkedArray) else encoded
    numbers: Ints = array.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return numbers, [str(value) for value in array.dictionary.to_pylist()]
