"""The second reading of a run, once the threshold is known: flagged images, rates, and the images worth a look."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from regrad import storage, table
from regrad.metrics.conformal import PValues
from regrad.metrics.wilson import share_interval
from regrad.runs.scored import Floats, Ints, Run, codes, floats, integers, judged
from regrad.runs.threshold import Threshold

IMAGE = tuple(column for column in table.FIXED_COLUMNS if column[0] not in ("nll", "digest"))
COLUMNS = tuple(name for name, _ in IMAGE)
SOURCES = 1000  # as many are listed; the counts are of all
PART_ROWS = 2**20
FLAG_SCHEMA = pa.schema([("set", pa.string()), *IMAGE, ("score", pa.float64()), ("p_value", pa.float64())])


@dataclass
class Sifted:
    """What :func:`sift` found in a run: ``rates`` for the report, and for each of its contact ``sheets`` the rows."""

    rates: dict[str, Any]
    sheets: dict[str, list[dict[str, Any]]]


class Watcher(Protocol):
    """What looks at the rows of a run beside :func:`sift`.

    Attributes:
        columns: of the run, beside those that are read anyway.
    """

    columns: Sequence[str]

    def offer(self, rows: pa.Table, shown: pa.Table) -> None:
        """Look at ``rows`` of the run; ``shown`` is what a picture of each of them would tell."""


def sift(
    run: Run,
    threshold: Threshold,
    top: int,
    judge: bool,
    flag: Callable[[pa.Table], None],
    p_values: PValues,
    watcher: Watcher | None = None,
) -> Sifted:
    """Flag the images of ``run`` with score > threshold, and pick the most and the least uncertain ones.

    Args:
        run: the run to read.
        threshold: when to flag.
        top: how many images to pick of each kind.
        judge: whether the labels are classes of the model. Then errors are counted, and the most certain ones are
            picked; else the labels say nothing, and the least uncertain of the images not flagged are.
        flag: takes the flagged rows, tables of FLAG_SCHEMA, as they come.
        p_values: of the threshold's score, against the run that a flagged image is unlike.
        watcher: sees every row, too.

    Raises:
        RegradError: the storage refused or failed.
    """
    classes = run.model["classes"]
    by_class = np.zeros((3, classes), np.int64)  # images, flagged, wrong
    by_source: dict[str, Ints] = {}
    uncertain, certain = Best(top), Best(top)
    labels = 0
    for rows in run.tables([*COLUMNS, threshold.score, *(watcher.columns if watcher else ())]):
        scores = floats(rows[threshold.score])
        flagged = scores > threshold.value
        labelled, right = judged(rows, classes)
        wrong = labelled & ~right & judge
        labels += int(labelled.sum())
        kinds = np.stack([np.ones_like(flagged), flagged, wrong])
        predictions = integers(rows["prediction"])
        by_class += _count(np.where((predictions >= 0) & (predictions < classes), predictions, classes), kinds, classes)
        place, names = codes(rows["source"])
        for name, counts in zip(names, _count(place, kinds, len(names)).T, strict=True):
            by_source[name] = by_source.get(name, 0) + counts
        plain = rows.select(list(COLUMNS)).append_column("score", pa.array(scores))
        verdict = pa.array(right, mask=~(labelled & judge))
        shown = plain.append_column("correct", verdict).append_column("flagged", pa.array(flagged))
        uncertain.offer(shown, -scores, ~np.isnan(scores))
        certain.offer(shown, scores, wrong if judge else ~flagged)
        if watcher:
            watcher.offer(rows, shown)
        if flagged.any():
            names_of_set = pa.array([run.name] * int(flagged.sum()), pa.string())
            shown = plain.filter(pa.array(flagged)).add_column(0, "set", names_of_set)
            flag(shown.append_column("p_value", pa.array(p_values(scores[flagged]))).cast(FLAG_SCHEMA))
    rates = _rates(by_class, by_source, judge and labels > 0)
    return Sifted(rates, {"uncertain": uncertain.rows(), "errors" if judge else "misses": certain.rows()})


def pick_images(sheets: Mapping[str, Sequence[dict[str, Any]]], top: int) -> list[dict[str, Any]]:
    """At most ``top`` rows, none of them twice: of each of n sheets but the first one up to ``top`` / n, and of the
    first one as many as there is room for.

    Each row gets ``sheets``: the names of those that it was picked for.
    """
    first, *others = sheets
    picked: dict[tuple[str, int], dict[str, Any]] = {}
    for name in others:
        for row in sheets[name][: top // len(sheets)]:
            held = picked.setdefault((row["source"], row["row"]), {"sheets": []})
            held |= row | {"sheets": [*held["sheets"], name]}
    ordered = []
    for row in sheets[first]:
        key = (row["source"], row["row"])
        if key in picked:
            held = picked.pop(key)
            ordered.append(held | {"sheets": [first, *held["sheets"]]})
        elif len(ordered) + len(picked) < top:
            ordered.append(row | {"sheets": [first]})
    return [*ordered, *picked.values()]


class Best:
    """The ``size`` rows with the smallest keys of all that were offered; among equals, the first ones offered."""

    def __init__(self, size: int):
        self.size = size
        self._keys: Floats = np.empty(0)
        self._rows: pa.Table | None = None

    @property
    def table(self) -> pa.Table | None:
        """The rows, smallest key first; None where there was none."""
        return self._rows

    def offer(self, rows: pa.Table, keys: Floats, mask: np.ndarray) -> None:
        """Consider the rows where ``mask``; ``keys`` and ``mask`` are (n,)."""
        if self._keys.size == self.size:
            mask = mask & (keys < (self._keys[-1] if self.size else -math.inf))
        places = np.flatnonzero(mask)
        if not places.size:
            return
        places = places[np.argsort(keys[places], kind="stable")[: self.size]]
        joined = np.concatenate([self._keys, keys[places]])
        order = np.argsort(joined, kind="stable")[: self.size]
        better = rows.take(pa.array(places))
        self._rows = (better if self._rows is None else pa.concat_tables([self._rows, better])).take(pa.array(order))
        self._keys = joined[order]

    def rows(self) -> list[dict[str, Any]]:
        """The rows as dictionaries, smallest key first."""
        return [] if self._rows is None else self._rows.to_pylist()


class Flags:
    """Writes flagged rows under ``OUT/flags/`` as parts of about a million, each whole or not at all.

    As a context manager it removes, at the end, the parts that an earlier report left there.
    """

    def __init__(self, output: str):
        self.folder = storage.join(output, "flags")
        self.written: list[str] = []
        self._waiting: list[pa.Table] = [FLAG_SCHEMA.empty_table()]

    def __enter__(self) -> Flags:
        return self

    def add(self, rows: pa.Table) -> None:
        """Take rows of FLAG_SCHEMA."""
        self._waiting.append(rows)
        if sum(map(len, self._waiting)) >= PART_ROWS:
            self._write()

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        if failed is not None:
            return
        if not self.written or any(map(len, self._waiting)):
            self._write()  # also when nothing is flagged: an empty table says so, a missing one does not
        for name in storage.list_files(self.folder, ".parquet"):
            if name not in self.written:
                storage.remove(storage.join(self.folder, name))

    def _write(self) -> None:
        name, sink = f"part-{len(self.written):05}.parquet", io.BytesIO()
        pa.parquet.write_table(pa.concat_tables(self._waiting), sink, compression="zstd")
        storage.write_atomically(storage.join(self.folder, name), sink.getvalue())
        self.written.append(name)
        self._waiting = [FLAG_SCHEMA.empty_table()]


def _rates(by_class: Ints, by_source: dict[str, Ints], judge: bool) -> dict[str, Any]:
    images, flagged, _ = np.sum(list(by_source.values()), axis=0).tolist()
    classes = [entry for entry in _entries("class", enumerate(by_class.T), judge) if entry["images"]]
    sources = list(_entries("source", by_source.items(), judge))
    return {
        "images": images,
        "flagged": flagged,
        "share": flagged / images,
        "interval": share_interval(flagged, images),
        "classes": _worst_first(classes),
        "sources": _worst_first(sources)[:SOURCES],
        "sources_total": len(sources),
    }


def _entries(key: str, groups: Any, judge: bool) -> Iterator[dict[str, Any]]:
    for name, (images, flagged, wrong) in groups:
        entry = {key: name, "images": int(images), "flagged": int(flagged)}
        yield entry | {"share": int(flagged) / max(int(images), 1), "wrong": int(wrong) if judge else None}


def _worst_first(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By the lower end of the share's interval: a shard of three images does not lead by chance."""
    return sorted(entries, key=lambda entry: -share_interval(entry["flagged"], entry["images"])[0])


def _count(place: Ints, kinds: np.ndarray, groups: int) -> Ints:
    """(3, groups) how many images of each kind are in each place; places beyond ``groups`` are left out."""
    return np.stack([np.bincount(place[kind], minlength=groups)[:groups] for kind in kinds])
