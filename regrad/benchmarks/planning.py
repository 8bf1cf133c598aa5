"""What a run costs before it scores, where all is scored already: listing, ledger and plan over numbers of units."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from PIL import Image

from regrad import table
from regrad.ledger import commit, snapshots
from regrad.ledger.status import status
from regrad.pipeline.plan import cut, make_plan
from regrad.reading.formats import Source
from regrad.reading.inputs import list_inputs
from regrad.reading.looked import Looked
from regrad.reading.samples import DEFAULT_COLUMNS

UNITS_PER_SHARD = 10
_LINKS = 10_000  # names for one file; file systems have a limit
_SALT = "benchmark"
STEPS = ("list", "ledger", "plan", "status")


def measure_plan(units: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Seconds of each of :data:`STEPS`, and the peak of memory in MB, of a process that plans so many committed units.

    The shards are names of a few files of :data:`UNITS_PER_SHARD` images, each a unit; the ledger is one snapshot.
    ``first`` is what listing takes where nothing is known of the shards.
    """
    with tempfile.TemporaryDirectory(prefix="regrad-plan-") as folder:
        say(f"writing {units} units")
        inputs, output = Path(folder, "in"), str(Path(folder, "out"))
        write_shards(inputs, units // UNITS_PER_SHARD)
        looked = Looked(output)
        started = time.perf_counter()
        sources = list_inputs([str(inputs)], DEFAULT_COLUMNS, output, looked).sources
        first = time.perf_counter() - started
        looked.save()
        write_ledger(output, sources)
        say(f"planning {units} units")
        return {"units": units, "shards": len(sources), "first": first} | _in_a_process(str(inputs), output)


def write_shards(folder: Path, count: int) -> None:
    """So many names of shards."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(buffer, "PNG")
    rows = pa.table({"image": [buffer.getvalue()] * UNITS_PER_SHARD})
    folder.mkdir()
    for number in range(count):
        path = folder / f"{number:07}.parquet"
        if number % _LINKS == 0:
            pa.parquet.write_table(rows, path)
            written = path
        else:
            os.link(written, path)


def write_ledger(output: str, sources: Sequence[Source]) -> None:
    """Every row of ``sources`` as a committed unit."""
    same = {"identity": "", "finished": "2026-01-01T00:00:00Z", "seconds": 0.1, "rest": "{}", "rows_quarantined": 0}
    same |= {"schema_version": table.SCHEMA_VERSION, "rows_in": 1, "rows_scored": 1, "labelled": 0, "correct": 0}
    spans = [(source, rows) for source in sources for rows in cut(source, 1, _SALT)]
    own = {
        "unit": [rows.key for _, rows in spans],
        "source": [source.uri for source, _ in spans],
        "start": [rows.start for _, rows in spans],
        "stop": [rows.stop for _, rows in spans],
    }
    rest = {name: [value] * len(spans) for name, value in (same | {"labels_outside": 0}).items()}
    rows = pa.table(own | rest).select(snapshots.COLUMNS.names).cast(snapshots.COLUMNS)
    snapshots.write_snapshot(output, 1, 1, snapshots.live(rows))
    run = {"schema_version": table.SCHEMA_VERSION, "status": "done", "started": None, "finished": None}
    Path(output, "run.json").write_text(json.dumps(run), encoding="utf-8")


def _in_a_process(inputs: str, output: str) -> dict[str, Any]:
    """Of a fresh one, so that its peak of memory is its own."""
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe(duplex=False)
    process = context.Process(target=_plan, args=(its, inputs, output))
    process.start()
    its.close()
    told: dict[str, Any] = mine.recv()
    process.join()
    return told


def _plan(connection: Any, inputs: str, output: str) -> None:
    seconds: dict[str, float] = {}
    started = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal started
        now = time.perf_counter()
        seconds[name], started = now - started, now

    listing = list_inputs([inputs], DEFAULT_COLUMNS, output, Looked(output))
    lap("list")
    ledger = commit.Ledger.read(output)
    lap("ledger")
    plan = make_plan(listing.sources, 1, _SALT, ledger)
    lap("plan")
    peak = _peak_mb()
    held = status(output)
    lap("status")
    assert not plan.pending
    assert len(plan.done) == held.units_done
    connection.send({"peak_mb": peak, **seconds})


def _peak_mb() -> float:
    """Of this process; what ``getrusage`` tells has that of its parent in it."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000


def plans_as_markdown(results: Sequence[dict[str, Any]]) -> str:
    """A row a number of units."""
    lines = [
        "| units | shards | list, first | list | ledger | plan | together | peak MB | `status` |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in results:
        together = sum(row[name] for name in STEPS if name != "status")
        numbers = [row["first"], *(row[name] for name in STEPS[:3]), together]
        cells = [f"{row['units']:,}", f"{row['shards']:,}", *(f"{number:.2f} s" for number in numbers)]
        lines.append(f"| {' | '.join(cells)} | {row['peak_mb']:.0f} | {row['status']:.2f} s |")
    return "\n".join(lines)


def plot_of_plans(results: Sequence[dict[str, Any]]) -> bytes:
    """Seconds over units as SVG, both logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    units = [row["units"] for row in results]
    for name in ("first", *STEPS):
        label = "list, nothing known" if name == "first" else name
        axes.loglog(units, [row[name] for row in results], marker="o", label=label)
    axes.set(xlabel="committed units", ylabel="seconds")
    axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
