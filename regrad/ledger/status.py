"""How far a run is, while it goes on or after: from ``run.json``, the lease and the ledger alone."""

from __future__ import annotations

import heapq
import json
import time
from calendar import timegm
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from regrad import storage, table
from regrad.ledger import commit, lease

_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
ENDED = "cut short"


@dataclass(frozen=True)
class Status:
    """What there is to tell of an output.

    Attributes:
        state: ``running``, ``done``, ``failed`` or ``interrupted`` as in ``run.json``; ``cut short`` where that says
            ``running`` but the process, on this machine, is no more, or nobody holds the lease.
        holder: who is at work, in words; None where nobody is.
        units_done, units: committed, and with those that the run has planned; None where ``run.json`` does not say.
        rows_scored, rows_quarantined: in the whole output.
        images_per_second: rows of the units that were committed since the run started, over its time; None before any.
        seconds_left: what is left to do at that speed, counted in units; None unless running.
        reasons: why rows are in quarantine, most frequent first.
        slowest: the units that took longest for an image: ``source, start, stop, rows, seconds``.
    """

    output: str
    state: str
    holder: str | None
    started: str | None
    finished: str | None
    exit_code: int | None
    units_done: int
    units: int | None
    rows_scored: int
    rows_quarantined: int
    images_per_second: float | None
    seconds_left: float | None
    reasons: dict[str, int]
    slowest: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """The attributes as ``regrad status --json`` prints them."""
        return asdict(self)


def status(output: str, slowest: int = 5) -> Status:
    """The state of the run at ``output``; it may be at work meanwhile.

    The cost is one small request for every unit that is not in a snapshot yet. Speeds compare the clocks of the workers
    with the one here.

    Args:
        slowest: how many units to name.

    Raises:
        UsageError: there is no run, or one of another schema version.
        RegradError: the storage refused or failed.
    """
    run = table.read_run(output)
    ledger = commit.Ledger.read(output)
    records = ledger.table()
    holder = lease.holder(output)
    alive = holder is not None and not holder.is_dead_here()
    state = run["status"] if run["status"] != "running" or alive else ENDED
    until = time.time() if state == "running" else _seconds(run.get("finished"))
    speed, left = _speed(run, records, until, state == "running")
    planned = run.get("units")
    reasons = _reasons(records)
    return Status(
        output=storage.mask(output),
        state=state,
        holder=str(holder) if holder and alive else None,
        started=run.get("started"),
        finished=run.get("finished"),
        exit_code=run.get("exit_code"),
        units_done=len(ledger.keys),
        units=planned and max(planned["planned"] + planned["done_before"], len(ledger.keys)),
        rows_scored=pc.sum(records["rows_scored"]).as_py() or 0,
        rows_quarantined=pc.sum(records["rows_quarantined"]).as_py() or 0,
        images_per_second=speed,
        seconds_left=left,
        reasons={reason: rows for reason, rows in reasons.most_common() if rows},
        slowest=_slowest(records, slowest),
    )


def _reasons(records: pa.Table) -> Counter[str]:
    """Why rows are in quarantine, and how many."""
    reasons: Counter[str] = Counter()
    for rest, rows in zip(records["rest"].to_pylist(), records["rows_quarantined"].to_pylist(), strict=True):
        if rows:
            reasons.update(json.loads(rest).get("reasons", {"not recorded": rows}))
    return reasons


def _speed(
    run: dict[str, Any], records: pa.Table, until: float | None, running: bool
) -> tuple[float | None, float | None]:
    """Images/s of this run, and the seconds left."""
    started = _seconds(run.get("started"))
    if started is None:
        return None, None
    own = [
        (finished, rows)
        for finished, rows in zip(records["finished"].to_pylist(), records["rows_in"].to_pylist(), strict=True)
        if finished and finished >= run["started"]  # as text, times are in their order
    ]
    if until is None:  # cut short: up to its last sign of life
        until = max((_seconds(finished) or 0 for finished, _ in own), default=started)
    elapsed = until - started
    if not own or elapsed <= 0:
        return None, None
    planned = run.get("units")
    left = planned["planned"] - len(own) if planned and running else None
    speed = sum(rows for _, rows in own) / elapsed
    return speed, None if left is None else max(left, 0) * elapsed / len(own)


def _slowest(records: pa.Table, count: int) -> list[dict[str, Any]]:
    """The ``count`` that took longest for a row."""
    times = zip(records["seconds"].to_pylist(), records["rows_in"].to_pylist(), strict=True)
    ranked = heapq.nlargest(count, ((seconds / max(rows, 1), -place) for place, (seconds, rows) in enumerate(times)))
    names = ["source", "start", "stop", "rows_in", "seconds"]
    chosen = [records.slice(-place, 1).select(names).to_pylist()[0] for _, place in ranked]
    return [
        {"source": storage.mask(row.pop("source")), "start": row["start"], "stop": row["stop"]}
        | {"rows": row["rows_in"], "seconds": row["seconds"]}
        for row in chosen
    ]


def _seconds(text: str | None) -> float | None:
    """A time of ``run.json`` or the ledger, in seconds since 1970."""
    return None if text is None else float(timegm(time.strptime(text, _FORMAT)))
