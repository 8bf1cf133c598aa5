"""`regrad filter` as a user runs it: lists, shards on Ray, a preview, one line per error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
import pytest

from regrad.commands.filter import main
from regrad.pipeline.options import parse
from regrad.pipeline.prepare import prepare
from regrad.pipeline.run import execute as score
from regrad.pipeline.run import score_here
from tests.shards import digits, write_parquet, write_tar


def run(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    code = main([*map(str, arguments)])
    return code, *capsys.readouterr()


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    write_parquet(tmp_path / "in/a.parquet", digits(40))
    write_tar(tmp_path / "in/b.tar", [*digits(60)[40:], ("bad.png", b"no image", 1)])
    settings = ["--model", "tests.shards:build", "--scores", "entropy", "--max-quarantined", "9"]
    score(prepare(parse([str(tmp_path / "in"), *settings, "--output", str(tmp_path / "run")], "", None)), score_here)
    return tmp_path / "run"


@pytest.mark.usefixtures("ray_session")
def test_lists_and_shards(scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = (scored, "--quantile", "0.9", "--output", tmp_path / "out", "--write-shards")
    code, out, _ = run(capsys, *command)
    assert code == 0
    assert "kept 54 images, dropped 6 and 1 that could not be scored" in out
    assert "54 images in 2 shards, 0 of which were there before" in out
    assert sorted(path.suffix for path in (tmp_path / "out/shards").iterdir()) == [".parquet", ".tar"]
    held = pyarrow.parquet.read_table(scored / "scores").to_pylist()
    dropped = {row["id"] for row in pyarrow.parquet.read_table(tmp_path / "out/drop.parquet").to_pylist()}
    highest = sorted(held, key=lambda row: -row["entropy"])[:6]
    assert {row["id"] for row in highest} | {"bad"} == dropped
    content = json.loads((tmp_path / "out/filter.json").read_text())
    assert (content["status"], content["counts"]) == ("done", {"kept": 54, "dropped": 6, "quarantined": 1})
    code, out, _ = run(capsys, *command)
    assert "2 of which were there before" in out
    code, _, err = run(capsys, scored, "--top", "3", "--output", tmp_path / "out")
    assert code == 2
    assert "holds another filter: rule above the 0.9 quantile of entropy, now among the 3 highest entropy" in err


@pytest.mark.parametrize("kind", ["keep", "drop"])
def test_a_list_is_handed_over(scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    (tmp_path / "in/b.tar").unlink()
    write_tar(tmp_path / "in/b.tar", digits(41)[40:])
    # One of the images that are still there cannot be scored; it is on the drop list, and no tool could show it.
    command = (scored, "--top", 50, "--format", "csv", "--hand-over", kind, "--output", tmp_path / "out")
    code, out, err = run(capsys, *command)
    assert code == 0
    listed = pyarrow.parquet.read_table(tmp_path / f"out/{kind}.parquet").filter(pc.field("prediction").is_valid())
    told = json.loads((tmp_path / "out/filter.json").read_text())["handed_over"]
    assert (told["form"], told["kind"]) == ("csv", kind)
    assert told["images"] + told["gone"] == len(listed) == {"keep": 10, "drop": 50}[kind]
    assert f"handed over {told['images']} images: {tmp_path}/out/{kind}-csv/" in out
    assert ("left out of it" in err) == bool(told["gone"])
    handed = pyarrow.csv.read_csv(tmp_path / f"out/{kind}-csv/images.csv")
    rows = {(row["source"], row["row"]): row for row in listed.to_pylist()}
    assert len(handed) == told["images"]
    for row in handed.to_pylist():
        assert row["entropy"] == pytest.approx(rows[row["source"], row["row"]]["score"])
        assert row["label"] == rows[row["source"], row["row"]]["label"]
        assert (tmp_path / f"out/{kind}-csv" / row["file"]).is_file()
    assert "confidence" not in listed.column_names


def test_a_dry_run_shows_counts_and_images_and_nothing_else(
    scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    condition = "entropy > 2 and not starts_with(id, '<b>')"
    code, out, _ = run(capsys, scored, "--drop", condition, "--output", tmp_path / "out", "--dry-run", "--examples", 4)
    assert code == 0
    held = pyarrow.parquet.read_table(scored / "scores")["entropy"].to_numpy()
    gone = int((held > 2).sum())
    assert out.startswith(f"{gone} of 60 images")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["preview.html"]
    html = (tmp_path / "out/preview.html").read_text()
    assert html.count("data:image/webp;base64,") == 2 * min(gone, 4) + min(60 - gone, 4)
    assert "<b>'" not in html  # what the user wrote is text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "one of the arguments --drop --quantile --top is required"),
        (("--drop", "entropy > 1", "--top", "3"), "not allowed with argument"),
        (("--drop", "entropie > 1"), "no column entropie; the columns are id,"),
        (("--drop", "__import__('os')"), "is not understood"),
        (("--drop", "entropy > 1", "--per-class"), "--per-class goes with --quantile or --top"),
        (("--quantile", "1.5"), "'1.5' is not a number above 0 and below 1"),
        (("--top", "-1"), "'-1' is not a whole number"),
        (("--top", "1", "--score", "energy"), "has the scores entropy"),
        (("--top", "1", "--format", "csv", "--dry-run"), "--format writes images, and --dry-run nothing"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(
    scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    code, out, err = run(capsys, scored, *arguments, "--output", tmp_path / "out")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "out").exists()
