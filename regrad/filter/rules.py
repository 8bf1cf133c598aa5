"""Which images of a run stay and which go: a rule, and the two lists of ids with the reason for each."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet

from regrad import storage
from regrad.errors import UsageError
from regrad.filter import expression
from regrad.ledger.rows import Rows
from regrad.runs.scored import PREFERRED_SCORE, Bools, Floats, Ints, Run, floats, integers
from regrad.runs.sift import Best
from regrad.runs.tally import CELLS, Tally, join_tallies

LIST_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("row", pa.int64()),
        ("label", pa.int32()),
        ("prediction", pa.int32()),
        ("score", pa.float64()),
        ("reason", pa.string()),
    ]
)
KEEP, DROP = "keep", "drop"
_GIVEN = ("confidence", "digest")  # what a hand-over needs besides


class Rule(Protocol):
    """What decides.

    Attributes:
        text: the rule in words; it is part of what an output is of.
        columns: what it reads of the score table.
        score: the score that images are shown by.
    """

    text: str
    columns: Sequence[str]
    score: str

    def drops(self, rows: pa.Table) -> tuple[Bools, pa.Array]:
        """(n,) which of the rows go, and (n,) why; the tables of a run come in order, each once."""


class Condition:
    """Drop the images that a condition holds for; where it is unknown (a null), they stay.

    Args:
        text: see :mod:`regrad.filter.expression`.
        run: the run it is about.

    Raises:
        UsageError: it is no condition on the columns of the run.
    """

    def __init__(self, text: str, run: Run, score: str):
        schema = Rows(run.output).schema()
        assert schema is not None  # a run without rows does not load
        self.text, self.score = text, score
        self._expression = expression.parse_condition(text, schema)
        self.columns: Sequence[str] = expression.columns_of(text, schema)

    def drops(self, rows: pa.Table) -> tuple[Bools, pa.Array]:
        """See :class:`Rule`."""
        verdicts = pa.dataset.dataset(rows).to_table(columns={"drop": self._expression})["drop"]
        mask: Bools = pc.fill_null(verdicts, False).to_numpy().astype(bool)
        return mask, pa.array(np.where(mask, self.text, f"not: {self.text}"))


class Above:
    """Drop the images whose score is above a value, and so many of those that tie with it; one value for all, or one
    for each predicted class.

    Args:
        values: (groups,).
        ties: (groups,) how many that tie go, in the order of the table.
    """

    def __init__(self, text: str, score: str, values: Floats, ties: Ints):
        self.text, self.score = text, score
        self.columns: Sequence[str] = (score, "prediction")
        self._values, self._ties = values, ties.copy()

    def drops(self, rows: pa.Table) -> tuple[Bools, pa.Array]:
        """See :class:`Rule`."""
        scores, groups = floats(rows[self.score]), group_of(rows, len(self._values))
        bounds = self._values[groups]
        mask = scores > bounds
        for place in np.flatnonzero((scores == bounds) & (self._ties[groups] > 0)):
            if self._ties[groups[place]]:
                self._ties[groups[place]] -= 1
                mask[place] = True
        reasons = np.array([f"{self.text}: {self.score} > {value:.6g}" for value in self._values])[groups]
        kept = np.array([f"{self.text}: {self.score} <= {value:.6g}" for value in self._values])[groups]
        return mask, pa.array(np.where(mask, reasons, kept))


def group_of(rows: pa.Table, groups: int) -> Ints:
    """(n,) the predicted class of each row; 0 for all where there is one group."""
    if groups == 1:
        return np.zeros(len(rows), np.int64)
    return np.clip(integers(rows["prediction"]), 0, groups - 1)


def above_quantile(run: Run, score: str, share: float, per_class: bool) -> Above:
    """Drop what lies above the quantile of ``score``: the smallest value that at most 1 - ``share`` exceed.

    Raises:
        RegradError: the storage refused or failed.
    """
    tallies = _tallies(run, score, per_class)
    allowed = [int((1 - share + 1e-9) * tally.images) for tally in tallies]  # as regrad.metrics.counted.quantile has it
    values, _ = _largest(run, score, tallies, [count + 1 for count in allowed])
    text = f"above the {share:g} quantile of {score}{' of its class' if per_class else ''}"
    return Above(text, score, values, np.zeros(len(tallies), np.int64))


def highest(run: Run, score: str, count: int, per_class: bool) -> Above:
    """Drop the ``count`` images with the highest ``score``; of those that tie for the last place, the first ones.

    Raises:
        RegradError: the storage refused or failed.
    """
    tallies = _tallies(run, score, per_class)
    values, above = _largest(run, score, tallies, [count] * len(tallies))
    text = f"among the {count} highest {score}{' of its class' if per_class else ''}"
    return Above(text, score, values, count - above)


def _largest(run: Run, score: str, tallies: Sequence[Tally], ranks: Sequence[int]) -> tuple[Floats, Ints]:
    """Of each group the value of this rank, 1 for the largest, and how many lie above it.

    For rank 0 that is infinity, and for one beyond the images minus infinity, above which all lie. Exact: where a tally
    has merged cells, the run is read again for the values of the cell in question.
    """
    values, above = np.full(len(tallies), np.inf), np.zeros(len(tallies), np.int64)
    cells: dict[int, tuple[float, float]] = {}
    for place, (tally, rank) in enumerate(zip(tallies, ranks, strict=True)):
        if rank > tally.images:
            values[place], above[place] = -np.inf, tally.images
        elif rank:
            distinct, (images,) = join_tallies([tally])
            reached = np.cumsum(images[::-1])[::-1]  # images of this cell and of those above it
            cell = int(np.flatnonzero(reached >= rank)[-1])
            values[place], above[place] = distinct[cell], reached[cell] - images[cell]
            if tally.shift:
                cells[place] = (
                    float(distinct[cell]),
                    float(distinct[cell + 1]) if cell + 1 < distinct.size else np.inf,
                )
    for place, inside in _inside(run, score, len(tallies), cells).items():
        ranked = np.sort(inside)[::-1]
        values[place] = ranked[ranks[place] - above[place] - 1]
        above[place] += int((ranked > values[place]).sum())
    return values, above


def _inside(run: Run, score: str, groups: int, cells: dict[int, tuple[float, float]]) -> dict[int, Floats]:
    """The scores that lie in one cell of each of some groups."""
    inside: dict[int, list[Floats]] = {place: [] for place in cells}
    for rows in run.tables([score, "prediction"]) if cells else ():
        scores, own = floats(rows[score]), group_of(rows, groups)
        for place, (low, high) in cells.items():
            inside[place].append(scores[(own == place) & (scores >= low) & (scores < high)])
    return {place: np.concatenate(parts) for place, parts in inside.items()}


def _tallies(run: Run, score: str, per_class: bool) -> list[Tally]:
    groups = run.model["classes"] if per_class else 1
    tallies = [Tally(max(CELLS // groups, 2**10)) for _ in range(groups)]
    for rows in run.tables([score, "prediction"]):
        scores, own = floats(rows[score]), group_of(rows, groups)
        there = ~np.isnan(scores)
        for place in np.unique(own[there]):
            tallies[place].add(scores[there & (own == place)])
    return tallies


@dataclass
class Sorting:
    """What :func:`sort_out` found: how many, why, and examples.

    Attributes:
        reasons: of the dropped, with their number.
        examples: the dropped images with the highest scores and those with the lowest, and the kept ones with the
            highest: what the rule is about is seen at its edge.
    """

    kept: int = 0
    dropped: int = 0
    quarantined: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


def sort_out(
    run: Run,
    rule: Rule,
    take: Callable[[str, pa.Table], None] = lambda kind, rows: None,
    top: int = 0,
) -> Sorting:
    """Read the run once more and give every image to one of two lists. What could not be scored is dropped.

    Args:
        take: gets tables of LIST_SCHEMA, and of ``confidence`` and ``digest`` where they were scored, with ``keep`` or
            ``drop``, as they come.
        top: how many examples of each kind.

    Raises:
        RegradError: the storage refused or failed.
    """
    sorting = Sorting()
    best = {"dropped, highest": Best(top), "dropped, lowest": Best(top), "kept, highest": Best(top)}
    wanted = dict.fromkeys(("id", "source", "row", "label", "prediction", *_GIVEN, rule.score, *rule.columns))
    for rows in run.tables(list(wanted)):
        mask, reasons = rule.drops(rows)
        listed = rows.select(["id", "source", "row", "label", "prediction"])
        listed = listed.append_column("score", rows[rule.score]).append_column("reason", reasons)
        listed = listed.cast(LIST_SCHEMA)
        for name in _GIVEN:
            listed = listed.append_column(name, rows[name])
        take(KEEP, listed.filter(pa.array(~mask)))
        take(DROP, listed.filter(pa.array(mask)))
        sorting.kept += int((~mask).sum())
        sorting.dropped += int(mask.sum())
        _add(sorting.reasons, listed.filter(pa.array(mask))["reason"])
        scores = floats(rows[rule.score])
        best["dropped, highest"].offer(listed, -scores, mask)
        best["dropped, lowest"].offer(listed, scores, mask)
        best["kept, highest"].offer(listed, -scores, ~mask)
    for rows in _quarantined(run.output):
        take(DROP, rows)
        sorting.quarantined += len(rows)
    sorting.examples = {name: kind.rows() for name, kind in best.items()}
    return sorting


def _add(reasons: dict[str, int], column: pa.ChunkedArray) -> None:
    for item in pc.value_counts(column).to_pylist():
        reasons[item["values"]] = reasons.get(item["values"], 0) + item["counts"]


def _quarantined(output: str) -> Iterator[pa.Table]:
    for rows in Rows(output, "quarantine").tables():
        if len(rows):
            why = pc.binary_join_element_wise("not scored", rows["stage"], rows["reason"], ": ")
            columns = {"id": rows["id"], "source": rows["source"], "row": rows["row"], "reason": why}
            yield pa.table(
                [columns.get(item.name, pa.nulls(len(rows), item.type)) for item in LIST_SCHEMA], schema=LIST_SCHEMA
            )


@contextlib.contextmanager
def lists(output: str) -> Iterator[Callable[[str, pa.Table], None]]:
    """Writes ``keep.parquet`` and ``drop.parquet`` under ``output``, whole, when the context ends well.

    Raises:
        RegradError: the storage refused or failed.
    """
    with contextlib.ExitStack() as stack:
        files: dict[str, IO[bytes]] = {
            kind: stack.enter_context(storage.writing(storage.join(output, f"{kind}.parquet"))) for kind in (KEEP, DROP)
        }
        writers = {
            kind: stack.enter_context(pa.parquet.ParquetWriter(file, LIST_SCHEMA, compression="zstd"))
            for kind, file in files.items()
        }
        yield lambda kind, rows: writers[kind].write_table(rows.select(LIST_SCHEMA.names))


def make_rule(run: Run, drop: str | None, quantile: float | None, top: int | None, score: str, per_class: bool) -> Rule:
    """The rule that the one given of ``drop``, ``quantile`` and ``top`` stands for.

    Raises:
        UsageError: the condition does not parse.
        RegradError: the storage refused or failed.
    """
    if drop is not None:
        return Condition(drop, run, score)
    if quantile is not None:
        return above_quantile(run, score, quantile, per_class)
    assert top is not None
    return highest(run, score, top, per_class)


def main_score(run: Run, wanted: str | None) -> str:
    """The score that was asked for, else the one that reports go by.

    Raises:
        UsageError: the run has no such score.
    """
    return _there(run, wanted) if wanted else PREFERRED_SCORE if PREFERRED_SCORE in run.scores else run.scores[0]


def _there(run: Run, score: str) -> str:
    if score not in run.scores:
        raise UsageError(f"--score {score}: {storage.mask(run.output)} has the scores {', '.join(run.scores)}")
    return score
