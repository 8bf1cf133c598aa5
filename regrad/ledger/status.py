"""How far a run is, while it goes on or after: from ``run.json``, the lease and the ledger alone."""

from __future__ import annotations

import contextlib
import time
from calendar import timegm
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from regrad import storage, table
from regrad.errors import RegradError
from regrad.ledger import commit, lease

_THREADS = 32
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

    The cost is one small request per committed unit. Speeds compare the clocks of the workers with the one here.

    Args:
        slowest: how many units to name.

    Raises:
        UsageError: there is no run, or one of another schema version.
        RegradError: the storage refused or failed.
    """
    run = table.read_run(output)
    keys = sorted(commit.committed(output))
    with ThreadPoolExecutor(_THREADS, "regrad-status") as pool:
        records = [record for record in pool.map(lambda key: _record(output, key), keys) if record]
    holder = lease.holder(output)
    alive = holder is not None and not holder.is_dead_here()
    state = run["status"] if run["status"] != "running" or alive else ENDED
    until = time.time() if state == "running" else _seconds(run.get("finished"))
    speed, left = _speed(run, records, until, state == "running")
    planned = run.get("units")
    reasons: Counter[str] = Counter()
    for record in records:
        reasons.update(record.get("reasons", {"not recorded": record["rows_quarantined"]}))
    return Status(
        output=storage.mask(output),
        state=state,
        holder=str(holder) if holder and alive else None,
        started=run.get("started"),
        finished=run.get("finished"),
        exit_code=run.get("exit_code"),
        units_done=len(keys),
        units=planned and max(planned["planned"] + planned["done_before"], len(keys)),
        rows_scored=sum(record["rows_scored"] for record in records),
        rows_quarantined=sum(record["rows_quarantined"] for record in records),
        images_per_second=speed,
        seconds_left=left,
        reasons={reason: rows for reason, rows in reasons.most_common() if rows},
        slowest=_slowest(records, slowest),
    )


def _record(output: str, key: str) -> dict[str, Any] | None:
    """One ledger record; None where it was retired meanwhile."""
    with contextlib.suppress(RegradError):
        return commit.read_records(output, [key])[0]
    if key in commit.committed(output):  # it is there and cannot be read
        return commit.read_records(output, [key])[0]
    return None


def _speed(
    run: dict[str, Any], records: Sequence[dict[str, Any]], until: float | None, running: bool
) -> tuple[float | None, float | None]:
    """Images/s of this run, and the seconds left."""
    started = _seconds(run.get("started"))
    if started is None:
        return None, None
    own = [record for record in records if (_seconds(record.get("finished")) or 0) >= started]
    if until is None:  # cut short: up to its last sign of life
        until = max((_seconds(record["finished"]) or 0 for record in own), default=started)
    elapsed = until - started
    if not own or elapsed <= 0:
        return None, None
    planned = run.get("units")
    left = planned["planned"] - len(own) if planned and running else None
    speed = sum(record["rows_in"] for record in own) / elapsed
    return speed, None if left is None else max(left, 0) * elapsed / len(own)


def _slowest(records: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    ranked = sorted(records, key=lambda record: -record["seconds"] / max(record["rows_in"], 1))
    return [
        {
            "source": storage.mask(record["source"]),
            "start": record["start"],
            "stop": record["stop"],
            "rows": record["rows_in"],
            "seconds": record["seconds"],
        }
        for record in ranked[:count]
    ]


def _seconds(text: str | None) -> float | None:
    """A time of ``run.json`` or the ledger, in seconds since 1970."""
    return None if text is None else float(timegm(time.strptime(text, _FORMAT)))
