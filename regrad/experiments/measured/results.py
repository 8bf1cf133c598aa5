"""One number of a table: ours with its spread, and the paper's beside it."""

from __future__ import annotations

import csv
import functools
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from regrad import storage
from regrad.errors import UsageError


@dataclass(frozen=True)
class Result:
    """One cell.

    Attributes:
        table: which table of ``regrad reproduce``.
        group: what stands together: a network, say.
        experiment: what was measured on, as the paper writes it where it has it.
        row: the method or setting.
        metric: AUROC, AUPR (in percent, as the paper's tables), rAULC, ACC (percent), NLL or a ratio.
        mean: over runs; None where it was not measured.
        deviation: over runs, with n - 1; None for one run.
        low, high: 95 % interval of ``mean`` had other images of the same sets been drawn.
        runs, runs_of: how many, and what differs between them: training or noise seeds.
        images: of each set.
        paper, paper_deviation: the paper's number for the same experiment and method.
        device, date: where and when ``mean`` came out first; empty where it was not measured.
    """

    table: str
    group: str
    experiment: str
    row: str
    metric: str
    mean: float | None = None
    deviation: float | None = None
    low: float | None = None
    high: float | None = None
    runs: int = 0
    runs_of: str = ""
    images: int = 0
    paper: float | None = None
    paper_deviation: float | None = None
    device: str = ""
    date: str = ""


def mean_and_deviation(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and deviation (n - 1) of the finite ``values``.

    >>> mean_and_deviation([1.0, 3.0]), mean_and_deviation([2.0]), mean_and_deviation([])
    ((2.0, 1.4142135623730951), (2.0, None), (None, None))
    """
    kept = [value for value in values if math.isfinite(value)]
    if not kept:
        return None, None
    mean = sum(kept) / len(kept)
    if len(kept) == 1:
        return mean, None
    return mean, math.sqrt(sum((value - mean) ** 2 for value in kept) / (len(kept) - 1))


@functools.cache
def paper() -> dict[tuple[str, str, str, str], tuple[float, float | None]]:
    """(table, experiment, row, metric) -> the paper's number and its deviation, from ``paper.csv``.

    >>> paper()["ood", "C10→SVHN", "REGrad*", "AUROC"]
    (92.32, 0.59)
    """
    text = resources.files(__package__).joinpath("paper.csv").read_text("utf-8")
    return {
        (line["table"], line["experiment"], line["row"], line["metric"]): (
            float(line["value"]),
            float(line["deviation"]) if line["deviation"] else None,
        )
        for line in csv.DictReader(io.StringIO(text))
    }


def beside_paper(table: str, experiment: str, row: str, metric: str) -> dict[str, Any]:
    """The fields ``paper`` and ``paper_deviation`` of a result."""
    value, deviation = paper().get((table, experiment, row, metric), (None, None))
    return {"paper": value, "paper_deviation": deviation}


def with_days(fresh: Iterable[Result], held: Iterable[Result], device: str, date: str) -> list[Result]:
    """``fresh`` with where and when it was measured, in its order, beside what was ``held`` of the same table before.

    An experiment that could be measured on fewer images now, or on none, stays as it was held; one whose numbers are as
    they were keeps its device and day; any other has these.
    """
    before = _by_experiment(held)
    told: list[Result] = []
    for place, cells in _by_experiment(fresh).items():
        old = before.get(place, [])
        if _images(old) > _images(cells):
            told += old
            continue
        same = next((cell for cell in old if cell.date), None) if _numbers(old) == _numbers(cells) else None
        told += _on((device, date) if same is None else (same.device, same.date), cells)
    return told


def _on(day: tuple[str, str], cells: Iterable[Result]) -> list[Result]:
    """``cells``, of which those with a number are of this device and day."""
    return [cell if cell.mean is None else replace(cell, device=day[0], date=day[1]) for cell in cells]


def _by_experiment(cells: Iterable[Result]) -> dict[tuple[str, str], list[Result]]:
    experiments: dict[tuple[str, str], list[Result]] = {}
    for cell in cells:
        experiments.setdefault((cell.group, cell.experiment), []).append(cell)
    return experiments


def _images(cells: Iterable[Result]) -> int:
    return max((cell.images for cell in cells if cell.mean is not None), default=0)


def _numbers(cells: Iterable[Result]) -> dict[tuple[str, str], tuple[object, ...]]:
    """(row, metric) -> what was measured."""
    return {
        (cell.row, cell.metric): (cell.mean, cell.deviation, cell.low, cell.high, cell.runs, cell.images)
        for cell in cells
        if cell.mean is not None
    }


def write_results(output: str, table: str, results: Iterable[Result], **about: Any) -> None:
    """``OUT/results/TABLE.json``, with ``about`` beside the rows, and the rows as ``TABLE.parquet``."""
    rows = [asdict(result) for result in results]
    content = json.dumps({"table": table, **about, "results": rows}, indent=1, ensure_ascii=False, allow_nan=False)
    sink = io.BytesIO()
    pa.parquet.write_table(pa.Table.from_pylist(rows), sink)
    for suffix, data in (("json", content.encode()), ("parquet", sink.getvalue())):
        storage.write_atomically(storage.join(output, "results", f"{table}.{suffix}"), data)


def read_results(output: str, table: str) -> tuple[list[Result], dict[str, Any]] | None:
    """What :func:`write_results` left of a table, and what stood beside; None where it was never written.

    Numbers that say no day are of the day and the device that stand beside the whole table.

    Raises:
        UsageError: the file is not one of ours.
    """
    folder = storage.join(output, "results")
    if f"{table}.json" not in storage.list_files(folder, ".json"):
        return None
    try:
        content = json.loads(storage.read_bytes(storage.join(folder, f"{table}.json")))
        rows = [Result(**row) for row in content.pop("results")]
        machine = content.get("machine", {})
        day = (machine.get("device", ""), machine.get("date", ""))
        return [cell for row in rows for cell in ([row] if row.date else _on(day, [row]))], content
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{storage.mask(folder)}/{table}.json: not a result of this version ({error}); run the table again"
        ) from error
