"""`regrad score` as a user runs it: exit codes, lines, and a cluster's job server."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from regrad import table
from regrad.commands.score import main
from tests.shards import digits, write_parquet, write_tar

MODEL = ("--model", "tests.shards:build", "--scores", "entropy")


def run(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    code = main([*map(str, arguments)])
    return code, *capsys.readouterr()


@pytest.mark.usefixtures("ray_session")
def test_from_shards_to_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    relabelled = [(name, image, 658 if row < 5 else label) for row, (name, image, label) in enumerate(digits())]
    source = write_parquet(tmp_path / "in.parquet", [*relabelled, ("bad", b"no image", 1)])
    code, out, _ = run(capsys, source, *MODEL, "--output", tmp_path / "out")
    assert code == 4
    assert "scored 60 images" in out
    assert "1 quarantined; 0 units were done before" in out
    assert f"{tmp_path}/out holds 60 scores and 1 quarantined rows" in out
    assert "% of 55 labelled images" in out
    assert "warning: 5 labels are outside the model's 10 classes" in out
    assert "exceed --max-quarantined 0: see" in out
    assert table.read(str(tmp_path / "out")).num_rows == 60
    code, out, _ = run(capsys, source, *MODEL, "--output", tmp_path / "out", "--max-quarantined", "2%")
    assert code == 0
    assert "scored 0 images" in out
    assert "1 units were done before" in out


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_tar(tmp_path / "in.tar", digits())
    code, out, _ = run(capsys, source, *MODEL, "--output", tmp_path / "out", "--dry-run")
    assert code == 0
    assert "images     60 to score" in out
    assert "estimate   about " in out
    assert not (tmp_path / "out").exists()


def test_what_the_time_until_the_first_unit_went_into(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_tar(tmp_path / "in.tar", digits())
    here = ("--ray-address", "none", "--output", tmp_path / "out")
    code, _, err = run(capsys, source, *MODEL, *here, "--verbose")
    assert code == 0
    steps = ("start", "inputs", "model", "engine", "plan", "first unit")
    pattern = ", ".join(rf"{step} \d+\.\d s" for step in steps)
    assert re.search(f"^until the first unit: {pattern}$", err, re.MULTILINE)
    assert re.search(r"^workers: \w+ \d+ %, .*scoring \d+ %|^workers: scoring \d+ %", err, re.MULTILINE)
    assert "until the first unit" not in run(capsys, source, *MODEL, *here)[2]


def test_the_scores_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--list-scores")
    assert code == 0
    names = [line for line in out.splitlines() if line and not line.startswith(" ")]
    assert {"regrad", "entropy", "laplace"} <= set(names)
    assert out.count("Source: ") == len(names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere.tar", *MODEL), "nowhere.tar: no such file or folder"),
        (("{tmp}/empty", *MODEL), "empty: an empty input"),
        (("{tmp}/words.parquet", *MODEL), "words.parquet: no image column: the columns are word (string)"),
        (("{tmp}/in.parquet", *MODEL, "--image-column", "photo"), "no column 'photo' for --image-column"),
        (("{tmp}/in.parquet", "--model", "tests.shards:nothing"), "has no 'nothing'"),
        (("{tmp}/in.parquet", "--model", "no_such_package:f"), "no module no_such_package"),
        (("{tmp}/in.parquet", *MODEL, "--scores", "regrat"), "no score regrat (did you mean regrad?); the scores are"),
        (("{tmp}/in.parquet", *MODEL, "--sigma", "-1"), "--sigma '-1': must be a finite number of at least 0"),
        (("{tmp}/in.parquet", *MODEL, "--channels", "3"), "(3, 8, 8)"),
        (("{tmp}/in.parquet", *MODEL, "--weights", "{tmp}/in.parquet"), "not readable without executing code"),
        (("{tmp}/in.parquet", *MODEL, "--gpus-per-worker", "lots"), "--gpus-per-worker 'lots'"),
        ((*MODEL,), "INPUT missing"),
    ],
)
def test_bad_input_gets_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    (tmp_path / "empty").mkdir()
    write_parquet(tmp_path / "in.parquet", digits(3))
    pa.parquet.write_table(pa.table({"word": ["cat"]}), tmp_path / "words.parquet")
    filled = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    code, out, err = run(capsys, *filled, "--output", tmp_path / "out")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_weights_that_do_not_fit_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import safetensors.torch
    import torch

    safetensors.torch.save_file({"other.weight": torch.zeros(3)}, tmp_path / "w.safetensors")
    source = write_parquet(tmp_path / "in.parquet", digits(3))
    code, _, err = run(capsys, source, *MODEL, "--weights", tmp_path / "w.safetensors", "--output", tmp_path / "out")
    assert code == 2
    assert "features.0.weight" in err or "other.weight" in err


def test_an_unreachable_store_is_a_failure_of_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    for name, value in {
        "AWS_ACCESS_KEY_ID": "tests-key",
        "AWS_SECRET_ACCESS_KEY": "tests-secret",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "REGRAD_STORAGE_PATIENCE": "1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    code, _, err = run(capsys, "s3://bucket/in.tar", *MODEL, "--output", tmp_path / "out")
    s3fs.S3FileSystem.clear_instance_cache()
    assert code == 1
    assert err.startswith("error: s3://bucket/in.tar: cannot list: ")
    assert err.count("\n") == 1
    assert "tests-secret" not in err


def test_a_cluster_that_does_not_answer_is_a_failure_of_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # whatever other tests have started
    source = write_parquet(tmp_path / "in.parquet", digits(3))
    code, _, err = run(capsys, source, *MODEL, "--output", tmp_path / "out", "--ray-address", "127.0.0.1:9")
    assert code == 1
    assert err.startswith("error: no Ray cluster at 127.0.0.1:9: ConnectionRefusedError")
    assert err.count("\n") == 1
    assert json.loads((tmp_path / "out/run.json").read_text())["status"] == "failed"


def test_verbose_shows_the_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "nowhere.tar", *MODEL, "--output", tmp_path / "out", "--verbose")
    assert code == 2
    assert "Traceback" in err
