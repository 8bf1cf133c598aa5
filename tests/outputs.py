"""Units committed without scoring anything: the ledger's own functions, on rows that a test makes up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from regrad import table
from regrad.ledger import commit


def commit_rows(output: str, key: str, *tables: pa.Table | None, **record: Any) -> dict[str, Any]:
    """Commit a unit of these rows, see :func:`new_unit`; returns its ledger record."""
    unit = new_unit(key, *tables, **record)
    commit.write_unit(output, unit)
    return unit.record


def new_unit(
    key: str,
    scores: pa.Table | None = None,
    quarantine: pa.Table | None = None,
    embeddings: pa.Table | None = None,
    **record: Any,
) -> commit.NewUnit:
    """A unit of these rows."""
    scored = table.score_schema([]).empty_table() if scores is None else scores
    refused = table.QUARANTINE_SCHEMA.empty_table() if quarantine is None else quarantine
    counts = {"rows_in": len(scored) + len(refused), "rows_scored": len(scored), "rows_quarantined": len(refused)}
    counts |= {"labelled": 0, "correct": 0, "labels_outside": 0, "reasons": {}, "skipped": {}}
    place = {"source": "made up", "start": 0, "stop": counts["rows_in"], "identity": "e"}
    told = {"seconds": 0.5, "finished": "2026-01-02T03:04:05Z", "schema_version": 2}
    written = {"unit": key, **place, **counts, **told, **record}
    provenance = {"unit": key, "identity": written["identity"], "model": {"spec": "tests:network", "fingerprint": "f"}}
    return commit.NewUnit(written, scored, refused, provenance, embeddings)


class Stopped(Exception):
    """Where a process was killed."""


def stop_after(left: Iterator[int]) -> None:
    """Raise :class:`Stopped` once nothing is ``left``."""
    if next(left, None) is None:
        raise Stopped
