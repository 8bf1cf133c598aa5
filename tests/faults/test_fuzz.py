"""Mutated files: a short form in ``make test``, 20,000 of each kind and a whole job in ``make test-faults``."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from regrad import table
from regrad.cluster import score_on_ray
from regrad.pipeline.options import parse
from regrad.pipeline.prepare import prepare
from regrad.pipeline.run import execute
from tests.faults.fuzz import CONTROL, KINDS, explain, fuzz, parquets, tars
from tests.faults.mutate import mutate
from tests.shards import write_parquet

LONG = int(os.environ.get("REGRAD_FUZZ_CASES", 20_000))


def check(kind: str, first: int, count: int) -> None:
    found = fuzz(kind, first, count)
    failures = found.pop("failures")
    print(kind, found)
    assert not failures, explain(kind, failures)
    assert found["cases"] == count
    assert found["scored"] > 0
    assert found["quarantined"] > 0


def test_mutated_files_cost_their_own_rows_at_most() -> None:
    check("every", 0, 900)  # in one process: to start one takes longer than a hundred cases


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
def test_many_mutated_files_cost_their_own_rows_at_most(kind: str) -> None:
    check(kind, 1000, LONG)


@pytest.mark.long
@pytest.mark.usefixtures("ray_session")
def test_mutated_shards_through_the_whole_job(tmp_path: Path) -> None:
    """A hundred mutants on Ray beside a sound shard: the job ends, the rows add up, the sound shard is whole."""
    (tmp_path / "in").mkdir()
    for kind, make in (("tar", tars), ("parquet", parquets)):
        (tmp_path / kind).mkdir()
        sound = make(tmp_path / kind)
        for number in range(50):
            content = mutate(kind, sound[number % len(sound)], np.random.default_rng([9, number]))
            (tmp_path / "in" / f"{number:03}.{kind}").write_bytes(content)
    control = write_parquet(tmp_path / "in/control.parquet", CONTROL)
    settings = ("--model", "tests.shards:build", "--scores", "entropy", "--num-workers", "2", "--unit-rows", "16")
    arguments = [str(tmp_path / "in"), *settings, "--output", str(tmp_path / "out")]
    outcome = execute(prepare(parse(arguments, "score", None)), score_on_ray)
    assert outcome.exit_code == 4
    scored = table.read(str(tmp_path / "out"))
    bad = table.read(str(tmp_path / "out"), kind="quarantine")
    assert (scored.num_rows, bad.num_rows) == (outcome.counts["rows_scored"], outcome.counts["rows_quarantined"])
    assert outcome.counts["rows_in"] == scored.num_rows + bad.num_rows
    assert scored["source"].to_pylist().count(control) == len(CONTROL)
    print(f"{scored.num_rows} scored, {bad.num_rows} quarantined")
    again = execute(prepare(parse(arguments, "score", None)), score_on_ray)
    assert (again.exit_code, again.this_run["rows_in"]) == (4, 0)
