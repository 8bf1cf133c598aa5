"""Every way a shard can be bad, through the real worker: what is scored, what is not, and that nothing is lost."""

import errno
import json
import os
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from regrad import table
from regrad.cluster import score_on_ray
from regrad.errors import RegradError, UsageError
from regrad.pipeline.options import parse
from regrad.pipeline.prepare import Job, prepare
from regrad.pipeline.run import execute, score_here
from regrad.reading.inputs import list_sources
from regrad.reading.samples import file_problem
from tests.bad_shards import GOOD, Case, cases, write_all
from tests.shards import write_folder, write_parquet, write_tar

Rows = dict[str, dict[str, list[dict[str, Any]]]]  # by file name and kind (scores, quarantine)
CASES = list(cases())


def job(output: Path, *inputs: str, scores: str = "entropy") -> Job:
    model = ("--model", "tests.shards:build_nan", "--scores", scores, "--samples", "2")
    settings = ("--unit-rows", "5", "--max-pixels", "1000000", "--output", str(output))
    return prepare(parse([*inputs, *model, *settings], "score", None))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """The rows of one run over all cases: by file name, ``scores`` and ``quarantine``."""
    folder = tmp_path_factory.mktemp("bad")
    outcome = execute(job(folder / "out", *write_all(folder / "in")), score_here)
    assert outcome.exit_code == 4
    rows: Rows = defaultdict(lambda: {"scores": [], "quarantine": []})
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
def test_what_becomes_of_a_bad_shard(found: Rows, case: Case) -> None:
    rows = found[case.file]
    assert sorted(row["id"] for row in rows["scores"]) == sorted(case.scored)
    said = {(row["stage"], row["row"]): row["reason"] for row in rows["quarantine"]}
    assert len(said) == len(rows["quarantine"])
    assert said.keys() == {(stage, row) for stage, row, _ in case.quarantined}, said
    for stage, row, pattern in case.quarantined:
        assert re.search(pattern, said[stage, row]), said[stage, row]
        assert "\n" not in said[stage, row]


def quarantined(output: Path) -> list[tuple[str, str, int | None, str]]:
    rows = table.read(str(output), kind="quarantine").to_pylist()
    return [(Path(row["source"]).name, row["stage"], row["row"], row["reason"]) for row in rows]


@pytest.mark.parametrize("damage", ["footer", "columns"])
def test_a_mended_shard_is_scored_and_its_quarantine_row_goes(tmp_path: Path, damage: str) -> None:
    write_parquet(tmp_path / "in/good.parquet", GOOD)
    bad = tmp_path / "in/bad.parquet"
    pa.parquet.write_table(pa.table({"word": ["cat"]}), bad)
    if damage == "footer":
        bad.write_bytes(bad.read_bytes()[:-9])
    outcome = execute(job(tmp_path / "out", str(tmp_path / "in")), score_here)
    assert (outcome.exit_code, outcome.counts["rows_scored"], outcome.counts["rows_quarantined"]) == (4, 12, 1)
    ((name, stage, row, _),) = quarantined(tmp_path / "out")
    assert (name, stage, row) == ("bad.parquet", "list", None)
    assert execute(job(tmp_path / "out", str(tmp_path / "in")), score_here).this_run["rows_in"] == 0
    write_parquet(bad, GOOD[:7])
    outcome = execute(job(tmp_path / "out", str(tmp_path / "in")), score_here)
    assert (outcome.exit_code, outcome.counts["rows_scored"], outcome.counts["rows_quarantined"]) == (0, 19, 0)
    assert not list((tmp_path / "out/quarantine").glob("*"))


def test_columns_that_no_shard_has_are_a_mistake_of_the_command(tmp_path: Path) -> None:
    for name in "ab":
        pa.parquet.write_table(pa.table({"word": ["cat"]}), tmp_path / f"{name}.parquet")
    with pytest.raises(UsageError, match=r"a\.parquet: no image column: the columns are word"):
        job(tmp_path / "out", str(tmp_path))


def test_shards_that_go_between_plan_and_read_are_no_longer_in_the_plan(tmp_path: Path) -> None:
    for name in ("a.parquet", "b.parquet"):
        write_parquet(tmp_path / "in" / name, GOOD)
    write_tar(tmp_path / "in/c.tar", GOOD)
    ready = job(tmp_path / "out", str(tmp_path / "in"))
    (tmp_path / "in/a.parquet").unlink()
    (tmp_path / "in/c.tar").unlink()
    outcome = execute(ready, score_here)
    assert (outcome.exit_code, outcome.counts["rows_in"], outcome.counts["rows_scored"]) == (0, 12, 12)


def test_a_shard_named_by_the_user_that_goes_is_an_error_after_the_others_are_done(tmp_path: Path) -> None:
    files = [write_parquet(tmp_path / name, GOOD) for name in ("a.parquet", "b.parquet")]
    ready = job(tmp_path / "out", *files)
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(RegradError, match=r"a\.parquet: no such file or folder"):
        execute(ready, score_here)
    assert table.read(str(tmp_path / "out")).num_rows == 12


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_without_permission_are_quarantined_until_they_have_it(tmp_path: Path) -> None:
    files = [write_parquet(tmp_path / "in/a.parquet", GOOD), write_tar(tmp_path / "in/b.tar", GOOD)]
    files.append(str(Path(write_folder(tmp_path / "images", GOOD)) / GOOD[0][0]))
    for file in files:
        os.chmod(file, 0)
    inputs = [str(tmp_path / "in"), str(tmp_path / "images")]
    outcome = execute(job(tmp_path / "out", *inputs), score_here)
    assert outcome.counts["rows_scored"] == 11
    assert ["Permission denied: mend" in why for *_, why in quarantined(tmp_path / "out")] == [True] * 3
    for file in files:
        os.chmod(file, 0o600)  # changes neither its size nor its time
    assert execute(job(tmp_path / "out", *inputs), score_here).counts["rows_scored"] == 36


def test_what_is_wrong_with_one_file_is_told_from_a_failing_disk() -> None:
    assert "Permission denied" in str(file_problem(PermissionError(errno.EACCES, "no"), local=True))
    assert file_problem(PermissionError(errno.EACCES, "Forbidden"), local=False) is None  # a store's: credentials
    assert file_problem(OSError(errno.EIO, "Input/output error"), local=True) is None


def test_a_link_has_the_identity_of_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.tar").symlink_to(write_tar(tmp_path / "content.tar", GOOD))
    before = list_sources([str(tmp_path / "in")])
    assert before == list_sources([str(tmp_path / "in/a.tar")])
    os.utime(tmp_path / "content.tar", (1, 1))
    assert list_sources([str(tmp_path / "in")])[0].identity != before[0].identity


def test_encoded_images_beyond_a_limit_are_not_read_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("tars.grouping", "parquet", "folder"):
        monkeypatch.setattr(f"regrad.reading.{module}.MAX_IMAGE_BYTES", 2**20)
    rows = [*GOOD[:2], ("large.png", bytes(2**21), 0), GOOD[2]]
    zipped = write_tar(tmp_path / "in/a.tar.gz", rows, "w:gz")
    assert os.path.getsize(zipped) < 2**14  # a bomb
    write_parquet(tmp_path / "in/b.parquet", rows)
    folder = write_folder(tmp_path / "images", rows)
    outcome = execute(job(tmp_path / "out", str(tmp_path / "in"), folder), score_here)
    assert (outcome.counts["rows_scored"], outcome.counts["rows_quarantined"]) == (9, 3)
    assert all("2097152 bytes, more than 1048576" in why for *_, why in quarantined(tmp_path / "out"))


@pytest.mark.usefixtures("ray_session")
def test_the_whole_job_scores_the_good_images_of_bad_shards(tmp_path: Path, found: Rows) -> None:
    """All cases at once on Ray: the accounting of the run in process, and the scores of a run without a bad shard."""
    outcome = execute(
        job(tmp_path / "out", *write_all(tmp_path / "in"), "--num-workers", "2", scores="regrad,entropy"), score_on_ray
    )
    assert outcome.exit_code == 4
    assert json.loads((tmp_path / "out/run.json").read_text())["exit_code"] == 4
    rows = table.read(str(tmp_path / "out")).to_pylist()
    clean = [write_tar(tmp_path / "clean/a.tar", GOOD), write_parquet(tmp_path / "clean/b.parquet", GOOD)]
    execute(job(tmp_path / "expected", *clean, scores="regrad,entropy"), score_here)
    expected = {row["id"]: row for row in table.read(str(tmp_path / "expected")).to_pylist()}
    compared = [row for row in rows if row["id"] in expected]
    assert len(compared) == sum(identifier in expected for case in CASES for identifier in case.scored) > 200
    for name in ("regrad", "entropy"):
        values = [[row[name], expected[row["id"]][name]] for row in compared]
        np.testing.assert_allclose(*zip(*values, strict=True), rtol=1e-6)
    counts = Counter(Path(row["source"]).name for row in rows)
    assert counts == {file: len(kinds["scores"]) for file, kinds in found.items() if kinds["scores"]}
    assert Counter(name for name, *_ in quarantined(tmp_path / "out")) == {
        file: len(kinds["quarantine"]) for file, kinds in found.items() if kinds["quarantine"]
    }
