"""A whole output compacted: its ledger folded, its parts merged; and which files and rows of it count.

A run does the same now and then; this is for an output that no run will go on with, and for those who want it now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from regrad import storage, table
from regrad.ledger import commit, contents, files, fold, lease, merge
from regrad.ledger.rows import Place, Rows


@dataclass(frozen=True)
class Compacted:
    """What was done: records folded, units moved, stray files removed; and how many files of rows there are now."""

    folded: int
    moved: int
    removed: int
    files: int


@dataclass(frozen=True)
class CountingFile:
    """A file of rows that count; ``spans`` are those that do (first, one past the last), None where all do."""

    uri: str
    spans: tuple[tuple[int, int], ...] | None = None


def compact(output: str, say: Callable[[str], None] = print) -> Compacted:
    """Fold and merge all that can be, and remove what attempts that were cut short have left.

    Raises:
        UsageError: there is no run, or one is at work on the output.
        RegradError: the storage refused or failed.
    """
    table.read_run(output)
    with lease.hold(output, say) as held:
        run = table.read_run(output)
        # Versions before would take merged files for strays: they refuse from now on.
        table.write_run(output, run | {"schema_version": table.SCHEMA_VERSION})
        kinds = contents.kinds_kept(run.get("config", {}))
        folded = fold.fold(output, held.check, at_least=1)
        moved = merge.merge(output, held.check, at_least=2, kinds=kinds)
        held.check()
        removed = commit.sweep(output, contents.committed(output), commit.WRITTEN)
        return Compacted(folded, moved, removed, sum(1 for kind in kinds for _ in parts(output, kind)))


def parts(output: str, kind: str = "scores") -> Iterator[CountingFile]:
    """The files of rows that count, by one look at the ledger, also while a run is at work.

    Raises:
        RegradError: the storage refused or failed, or the ledger is damaged.
    """
    by_file: dict[str, list[Place]] = {}
    for place in Rows(output, kind).places:
        by_file.setdefault(place.file or f"part-{place.unit}.parquet", []).append(place)
    for name in sorted(by_file):
        yield CountingFile(storage.join(output, kind, name), _spans(name, by_file[name]))


def _spans(name: str, places: list[Place]) -> tuple[tuple[int, int], ...] | None:
    size = files.size_of(name)
    if size is None or sum(place.rows for place in places) == size.rows:
        return None
    spans: list[tuple[int, int]] = []
    for start, rows in sorted((place.start or 0, place.rows) for place in places):
        if spans and spans[-1][1] == start:
            spans[-1] = (spans[-1][0], start + rows)
        else:
            spans.append((start, start + rows))
    return tuple(spans)
