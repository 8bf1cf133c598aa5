"""What of a night's units is not that night's: images that were scored again, since what holds them has changed."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from regrad.audit.history import History
from regrad.ledger import audited, commit
from regrad.pipeline import manifest
from regrad.pipeline.account import reasons_of
from regrad.runs.scored import Ints


@dataclass
class Counted:
    """The units of a night without what was counted before.

    Attributes:
        totals: as of :func:`regrad.pipeline.manifest.totals`, ``rows_in, rows_scored, rows_quarantined`` without it.
        reasons: why rows are in quarantine.
        left_out: source -> rows (n,) that were scored again.
        again: how many rows were ``scored`` again, and ``quarantined`` again.
    """

    totals: dict[str, int]
    reasons: Counter[str] = field(default_factory=Counter)
    left_out: dict[str, Ints] = field(default_factory=dict)
    again: dict[str, int] = field(default_factory=lambda: {"scored": 0, "quarantined": 0})


def count_new(
    output: str,
    baseline: str,
    nights: History,
    night: str,
    records: Sequence[Mapping[str, Any]],
    apart: Collection[str] = (),
) -> Counted:
    """The units with these ledger records without the images that another night has counted, or the baseline holds.

    Rows are read only of sources of which units have gone, or the baseline has some. Memory: one source at a time.

    Args:
        apart: units of the baseline that have no image in common with these.

    Raises:
        RegradError: the storage refused or failed.
    """
    counted = Counted(manifest.totals(records))
    others = {row["night"] for row in nights.rows} - {night}
    own, ledger = commit.Ledger.read(output), commit.Ledger.read(baseline)
    known_units = commit.by_source(key for key in ledger.keys if key not in apart)
    changed = set(audited.sources_of_retired(output))
    by_source: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        by_source.setdefault(record["source"], []).append(record)
    for source, units in by_source.items():
        digits = commit.source_digits(source)
        known = audited.Known()
        if digits in changed:
            known = audited.Retired(output, digits).known(source, others.__contains__)
        same = (record for record in ledger.records(known_units.get(digits, ())) if record["source"] == source)
        for image in itertools.chain(*audited.images(ledger, [record["unit"] for record in same]).values()):
            known.add(image.name, image.digest, image.scored)
        _count(own, source, units, known, counted)
    for name, rows in (("scored", counted.again["scored"]), ("quarantined", counted.again["quarantined"])):
        counted.totals[f"rows_{name}"] -= rows
        counted.totals["rows_in"] -= rows
    return counted


def _count(
    ledger: commit.Ledger, source: str, records: Sequence[Mapping[str, Any]], known: audited.Known, counted: Counted
) -> None:
    rows: list[int] = []
    held = audited.images(ledger, [record["unit"] for record in records] if known else [])
    for record in records:
        if not known:
            counted.reasons.update(record.get("reasons", {}))
            continue
        new: list[tuple[str, str]] = []
        for image in held[record["unit"]]:
            if known.take(image):
                counted.again["scored" if image.scored else "quarantined"] += 1
                rows += [image.row] if image.scored and image.row is not None else []
            elif image.reason:
                new.append(image.reason)
        counted.reasons.update(reasons_of(new))
    if rows:
        counted.left_out[source] = np.array(sorted(rows), np.int64)
