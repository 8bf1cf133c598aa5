"""An output with columns of several numbers a row goes through everything that reads rows, which reads them not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from regrad import Classifier, table
from regrad.__main__ import main
from regrad.ledger import merge
from regrad.ledger.files import RowFile
from regrad.ledger.rows import Rows
from regrad.reading.decode import to_tensor
from regrad.runs import scored
from tests.shards import digits, write_parquet

FLAGS = ("--model", "tests.shards:build", "--scores", "entropy,margin", "--ray-address", "none", "--unit-rows", "8")


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("several")
    write_parquet(folder / "in.parquet", [*digits(40), ("bad", b"no image", 1)])
    arguments = [*FLAGS, "--logits", "--max-quarantined", "1", "--output", str(folder / "out")]
    assert main(["score", str(folder / "in.parquet"), *arguments]) == 0
    return str(folder / "out")


def test_logits_are_the_networks_own(output: str) -> None:
    rows = {row["id"]: row for row in table.read(output).to_pylist()}
    assert len(rows) == 40
    classifier = Classifier.load("tests.shards:build")
    for name, image, _ in digits(40)[:5]:
        with torch.no_grad():
            (wanted,) = classifier.network(classifier.normalize(to_tensor(image, classifier, 10**6))[None])
        np.testing.assert_allclose(rows[name]["logits"], wanted.numpy(), rtol=1e-5, atol=1e-6)
        p = torch.tensor(rows[name]["logits"]).softmax(0)
        assert rows[name]["confidence"] == pytest.approx(float(p.max()), rel=1e-5)
        assert (rows[name]["prediction"], list(rows[name])[-1]) == (int(p.argmax()), "logits")


def test_they_are_part_of_the_configuration(output: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = str(Path(output).parent / "in.parquet")
    assert main(["score", source, *FLAGS, "--output", output]) == 2
    assert "logits True, now False" in capsys.readouterr().err
    plain = str(tmp_path / "plain")
    assert main(["score", source, *FLAGS, "--max-quarantined", "1", "--output", plain]) == 0
    assert "logits" not in table.read_run(plain)["config"]  # as in outputs that are older than the setting
    # Runs with and without them compare.
    arguments = ["--no-thumbnails", "--reference", plain, "--output", str(tmp_path / "report")]
    assert main(["report", "--id", output, *arguments]) == 0


def test_what_reads_rows_reads_no_logits(output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []
    real = RowFile.read

    def read(self: RowFile, group: int | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        rows = real(self, group, columns)
        given.append(rows.column_names)
        return rows

    monkeypatch.setattr(RowFile, "read", read)
    out = [str(tmp_path / name) for name in ("report", "filtered", "by-condition", "label.csv")]
    commands = [
        ["report", "--id", output, "--no-thumbnails", "--output", out[0]],
        ["report", "--compare", output, output, "--no-thumbnails", "--output", out[0]],
        ["filter", output, "--quantile", "0.9", "--output", out[1]],
        ["filter", output, "--drop", "entropy > 0.1 and label is not None", "--output", out[2]],
        ["select", output, "--budget", "3", "--output", out[3]],
        ["status", output],
    ]
    for command in commands:
        assert main(command) == 0, command
    assert len(given) > 30
    assert [names for names in given if "logits" in names] == []
    assert scored.load_run("run", output).scores == ("entropy", "margin")


def test_they_stay_when_parts_are_merged(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = table.read(output).sort_by("row")
    assert main(["check", output]) == 0
    monkeypatch.setattr(merge, "AT_LEAST", 2)
    assert main(["compact", output]) == 0
    assert [path.name[:6] for path in (Path(output) / "scores").iterdir()] == ["merged"]
    assert main(["check", output]) == 0
    after = table.read(output).sort_by("row")
    assert after.schema.field("logits").type == pa.list_(pa.float32(), 10)
    assert after.equals(before)
    (rows,) = Rows(output).tables(["logits"])
    assert rows["logits"].type == pa.list_(pa.float32(), 10)


def test_check_wants_them_where_they_were_asked_for(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An output that says it has logits, and has none."""
    place = Path(output) / "run.json"
    held = place.read_text()
    run: dict[str, Any] = json.loads(held)
    run["model"]["classes"] = 11
    place.write_text(json.dumps(run))
    try:
        assert main(["check", output]) == 1
        assert "without the column logits, or with another type" in capsys.readouterr().out
    finally:
        place.write_text(held)
