"""Runs of `regrad score` that are killed at random moments, and what must hold of their output afterwards."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import psutil

from regrad import storage, table
from regrad.commands import check
from regrad.ledger import commit, contents
from regrad.ledger.rows import Rows
from regrad.pipeline.options import parse
from regrad.pipeline.prepare import prepare
from regrad.pipeline.run import execute, score_here

ROOT = Path(__file__).parents[2]
WORKER = "MapWorker"  # in the title of the processes that score
START_SECONDS = 8.0  # about what a run takes until its first unit: kills fall before it too
PATIENCE = 240.0
#: `regrad`, compacting its output after a few units instead of thousands, committing three together already, and
#: cutting small tars too: kills fall into folds and merges, and between the pieces of a tar.
COMPACTING = """
import sys
from regrad.__main__ import main
from regrad.ledger import bundles, fold, merge
from regrad.pipeline import run
from regrad.reading.tars import survey
survey.SMALL_BYTES, survey.MARK_ROWS = 0, 12
fold.AT_LEAST, run._COMPACTED_AFTER, merge.AT_LEAST, merge._UNITS, bundles.LEAST = 3, 5, 2, 8, 3
sys.exit(main())
"""


@dataclass
class Job:
    """A command of `regrad score`, run again and again on one output.

    Attributes:
        ledger: the folder where committed units can be counted from outside, whatever serves it.
        undisturbed: the score columns of a run that nobody killed, by (source's base name, row).
        kills: what was killed so far.
    """

    output: str
    ledger: Path
    arguments: list[str]
    undisturbed: Mapping[tuple[str, int], dict[str, float]]
    environment: dict[str, str] = field(default_factory=dict)
    kills: list[str] = field(default_factory=list)

    def start(self, *more: str) -> Run:
        """One run of the command, with ``more`` arguments if given, in a process group of its own."""
        command = [sys.executable, "-c", COMPACTING, "score", *self.arguments, "--output", self.output, *more]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **self.environment}
        log = tempfile.TemporaryFile()  # noqa: SIM115 - no pipe: what outlives a killed driver would hold its other end
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, start_new_session=True, stdout=log, stderr=subprocess.STDOUT
        )
        return Run(self, process, log)

    def forget(self) -> None:
        """Begin with an empty output."""
        fs, path = storage.filesystem(self.output)
        fs.rm(path, recursive=True)

    def units(self) -> int:
        """How many units are committed now."""
        return len(contents.committed(str(self.ledger.parent)))


@dataclass
class Run:
    """A run that goes on."""

    job: Job
    process: subprocess.Popen[bytes]
    log: IO[bytes]

    def wait_for_units(self, number: int) -> bool:
        """Wait until ``number`` more units are committed; False if the run ended before."""
        wanted, end = self.job.units() + number, time.monotonic() + PATIENCE
        while self.job.units() < wanted:
            if self.process.poll() is not None:
                return False
            assert time.monotonic() < end, "the run makes no progress"
            time.sleep(0.1)
        return True

    def moment(self, dice: random.Random) -> bool:
        """Wait for a random moment: while it starts, or in the middle; False if the run ended before."""
        if dice.random() < 0.25 and not self.job.units():
            time.sleep(dice.uniform(0, START_SECONDS))
        elif not self.wait_for_units(dice.randint(1, 4)):
            return False
        time.sleep(dice.uniform(0, 0.3))
        return self.process.poll() is None

    def kill_driver(self) -> None:
        """SIGKILL to the process the user started."""
        self.process.kill()
        self.process.wait()
        self.job.kills.append("driver")

    def workers(self, nodes: list[psutil.Process] | None = None) -> list[psutil.Process]:
        """The processes that score, as far as they have started; ``nodes``: of a cluster's raylets."""
        found = []
        for parent in nodes or [psutil.Process(self.process.pid)]:
            with contextlib.suppress(psutil.Error):
                found += [child for child in parent.children(recursive=True) if WORKER in "".join(child.cmdline()[:1])]
        return sorted(found, key=lambda child: child.pid)

    def wait_for_workers(self) -> None:
        """Wait until one has started: those of a driver that was killed have ended by then."""
        end = time.monotonic() + PATIENCE
        while not self.workers():
            assert self.process.poll() is None, "the run has ended"
            assert time.monotonic() < end, "no worker starts"
            time.sleep(0.2)

    def kill_worker(self, dice: random.Random, nodes: list[psutil.Process] | None = None) -> bool:
        """SIGKILL to one of the :meth:`workers`, if one has started."""
        found = self.workers(nodes)
        if not found:
            return False
        with contextlib.suppress(psutil.Error):
            dice.choice(found).kill()
            self.job.kills.append("worker")
        return True

    def end(self, code: int = 0) -> str:
        """Wait until it ends, as a rule well; what it printed."""
        found = self.process.wait(PATIENCE)
        self.log.seek(0)
        printed = self.log.read().decode()
        assert found == code, printed
        return printed

    def stop(self) -> None:
        """Leave nothing running, whatever happened."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()


def undisturbed(arguments: list[str], output: str) -> dict[tuple[str, int], dict[str, float]]:
    """The scores of a run in this process that nobody kills."""
    execute(prepare(parse([*arguments, "--output", output], "score", None)), score_here)
    return scored(output)


def scored(output: str) -> dict[tuple[str, int], dict[str, float]]:
    """The score columns by (source's base name, row), each row once."""
    rows = table.read(output).to_pylist()
    found = {
        (os.path.basename(row["source"]), row["row"]): {
            name: value for name, value in row.items() if isinstance(value, float)
        }
        for row in rows
    }
    assert len(found) == len(rows), "a row is there twice"
    return found


def assert_sound(job: Job, capture: Callable[[], str]) -> None:
    """Every row exactly once with the undisturbed run's scores, nothing left over, run.json right."""
    held = scored(job.output)
    assert held.keys() == job.undisturbed.keys()
    if table.read_run(job.output)["config"].get("embeddings"):
        columns = table.read(job.output, ["source", "row"], "embeddings")
        embedded = [(os.path.basename(source), row) for source, row in zip(*columns.to_pydict().values(), strict=True)]
        assert sorted(embedded) == sorted(held)
    for name in next(iter(job.undisturbed.values())):
        got, wanted = ([rows[key][name] for key in job.undisturbed] for rows in (held, job.undisturbed))
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-9, err_msg=name)
    content = table.read_run(job.output)
    assert (content["status"], content["exit_code"]) == ("done", 0)
    assert content["counts"]["rows_scored"] == len(held)
    assert commit.left_over(job.output, contents.committed(job.output)) == []
    assert len(contents.look(job.output).loose) < 3 <= len(contents.committed(job.output))  # they were folded
    parts = [place for place in Rows(job.output).places if not place.file]
    assert len(parts) < 5  # the others were merged: those that were loose are not
    assert check.main([job.output]) == 0, capture()
