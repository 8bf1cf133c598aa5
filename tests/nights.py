"""Nights as the tests have them: inputs that fill up, and audits of them in this process."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from regrad import storage, table
from regrad.audit import run as audits
from regrad.audit.options import OPTIONS, check_options
from regrad.pipeline.check import check
from regrad.pipeline.options import parse
from regrad.pipeline.prepare import prepare
from regrad.pipeline.run import RunOutcome, execute, score_here
from regrad.reading.samples import digest_of
from tests.shards import Row, digits, png, write_parquet

SETTINGS = ["--model", "tests.shards:build", "--scores", "entropy", "--max-quarantined", "99%", "--no-thumbnails"]


class Nights:
    """A folder of shards that fills up, and the audit over it."""

    def __init__(self, inputs: Path, outputs: str):
        self.inputs = inputs
        self.outputs = outputs
        self.sources: list[str] = []  # in place of the folder
        self.settings = [*SETTINGS, "--baseline", f"{outputs}/baseline", "--output", f"{outputs}/audit"]

    def arrive(self, name: str, rows: Any) -> None:
        write_parquet(self.inputs / name, rows)

    def options(self, *more: str) -> Any:
        return parse([*(self.sources or [str(self.inputs)]), *self.settings, *more], "audit", None, OPTIONS)

    def baseline(self) -> None:
        execute(audits.make_baseline(self.options("--make-baseline")), score_here)

    def audit(self, *more: str) -> tuple[RunOutcome, dict[str, Any]]:
        options = self.options(*more)
        return audits.audit_night(audits.plan(options, check_options(options, {})), score_here)

    def history(self) -> list[dict[str, Any]]:
        content = storage.read_bytes(f"{self.outputs}/audit/history.parquet")
        return pyarrow.parquet.read_table(pyarrow.BufferReader(content)).to_pylist()


def noise(count: int) -> list[tuple[str, bytes, int]]:
    """Pictures that are no digits."""
    rng = np.random.default_rng(0)
    return [(f"noise/{row}", png(rng.integers(0, 256, (8, 8))), 0) for row in range(count)]


UNIT_ROWS = 8
SCORING = ("--model", "tests.shards:build", "--scores", "entropy", "--unit-rows", str(UNIT_ROWS))


class Incoming(Nights):
    """Nights over one source; the baseline is of other images, unless told."""

    def __init__(self, place: Path, name: str = "in", uri: str | None = None, known: str | None = None):
        super().__init__(uri or place / name, str(place / "out"))  # type: ignore[arg-type]
        self.settings += ["--unit-rows", str(UNIT_ROWS), "--max-quarantined", "99%"]
        known = known or write_parquet(place / "known.parquet", digits(100))
        execute(audits.make_baseline(parse([known, *self.settings], "audit", None, OPTIONS)), score_here)

    @property
    def output(self) -> str:
        return f"{self.outputs}/audit"

    def night(self, *more: str) -> tuple[int, int]:
        """One audit: rows that were scored or refused in it, and images that are that night's."""
        outcome, found = self.audit(*more)
        return outcome.this_run["rows_in"], found["images"]

    def hold(self, rows: Sequence[Row]) -> None:
        """The output has exactly these images, each once, as a run that scores them all at once has them."""
        found = table.read(self.output).to_pylist()
        assert sorted(row["id"] for row in found) == sorted(name for name, *_ in rows)
        contents = {name: image for name, image, _ in rows}
        assert all(row["digest"] == digest_of(contents[row["id"]]) for row in found)
        assert len({row["row"] for row in found}) == len(found)
        fresh = f"{self.outputs}/fresh-{uuid.uuid4().hex}"
        score(str(self.inputs), fresh)
        expected = {row["id"]: row["entropy"] for row in table.read(fresh).to_pylist()}
        assert {row["id"]: row["entropy"] for row in found} == pytest.approx(expected, rel=1e-6)
        self.sound()

    def sound(self) -> None:
        found = check(self.output)
        assert (found.problems, found.notes) == ([], [])


def score(source: str, output: str) -> None:
    settings = [source, *SCORING, "--max-quarantined", "99%", "--output", output]
    execute(prepare(parse(settings, "score", None)), score_here)


def camera(first: int, last: int) -> list[Row]:
    """Digits under random names, as cameras give them: what comes in tonight lies between what was there."""
    random = np.random.default_rng(0)
    names = [f"{uuid.UUID(bytes=random.bytes(16))}.png" for _ in range(last)]
    return [(name, image, label) for name, (_, image, label) in zip(names, digits(last), strict=True)][first:]
