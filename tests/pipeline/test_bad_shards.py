"""Every way a shard can be bad, through the real worker: what is scored, what is not, and that nothing is lost."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from regrad import table
from regrad.pipeline.execute import run, score_here
from regrad.pipeline.options import parse
from regrad.pipeline.prepare import Job, prepare
from tests.bad_shards import Case, cases, write_all

CASES = list(cases())


def job(output: Path, *inputs: str) -> Job:
    settings = (
        "--model",
        "tests.shards:build_nan",
        "--scores",
        "entropy",
        "--unit-rows",
        "5",
        "--max-pixels",
        "1000000",
    )
    return prepare(parse([*inputs, *settings, "--output", str(output)], "score.py", None))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """The rows of one run over all cases: by file name, ``scores`` and ``quarantine``."""
    folder = tmp_path_factory.mktemp("bad")
    outcome = run(job(folder / "out", *write_all(folder / "in")), score_here)
    assert outcome.exit_code == 4
    rows: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: {"scores": [], "quarantine": []})
    for kind in ("scores", "quarantine"):
        for row in table.read(str(folder / "out"), kind=kind).to_pylist():
            rows[Path(row["source"]).name][kind].append(row)
    counted = sum(len(rows) for kinds in rows.values() for rows in kinds.values())
    assert (
        counted
        == outcome.counts["rows_in"]
        == sum(outcome.counts[f"rows_{kind}"] for kind in ("scored", "quarantined"))
    )
    return rows


@pytest.mark.parametrize("case", CASES, ids=[case.file for case in CASES])
def test_what_becomes_of_a_bad_shard(found: dict[str, dict[str, list[dict[str, Any]]]], case: Case) -> None:
    rows = found[case.file]
    assert sorted(row["id"] for row in rows["scores"]) == sorted(case.scored)
    said = {(row["stage"], row["row"]): row["reason"] for row in rows["quarantine"]}
    assert len(said) == len(rows["quarantine"])
    assert said.keys() == {(stage, row) for stage, row, _ in case.quarantined}, said
    for stage, row, pattern in case.quarantined:
        assert re.search(pattern, said[stage, row]), said[stage, row]
        assert "\n" not in said[stage, row]
