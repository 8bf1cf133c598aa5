"""`regrad select` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch

from regrad.classifier import Classifier
from regrad.commands.select import main
from regrad.errors import UsageError
from regrad.pipeline.options import parse
from regrad.pipeline.prepare import prepare
from regrad.pipeline.run import execute as score
from regrad.pipeline.run import score_here
from regrad.select import features
from tests.shards import build, digits, write_parquet, write_tar


def run(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    code = main([*map(str, arguments)])
    return code, *capsys.readouterr()


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    write_parquet(tmp_path / "in/a.parquet", digits(40))
    write_tar(tmp_path / "in/b.tar", digits(60)[40:])
    settings = ["--model", "tests.shards:build", "--scores", "entropy"]
    score(prepare(parse([str(tmp_path / "in"), *settings, "--output", str(tmp_path / "run")], "", None)), score_here)
    return tmp_path / "run"


def test_a_budget_by_score(scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, scored, "--budget", 7, "--score", "entropy", "--output", tmp_path / "chosen.csv")
    assert code == 0
    assert out.startswith("chose 7 of 7 candidates by entropy\n")
    held = pyarrow.parquet.read_table(scored / "scores").to_pylist()
    expected = [row["id"] for row in sorted(held, key=lambda row: -row["entropy"])[:7]]
    assert pyarrow.csv.read_csv(tmp_path / "chosen.csv")["id"].to_pylist() == expected
    again = (scored, "--budget", 99, "--labelled", tmp_path / "chosen.csv", "--output", tmp_path / "rest.csv")
    code, out, err = run(capsys, *again)
    assert code == 0
    assert f"--labelled {tmp_path}/chosen.csv (CSV): 7 labelled images\nchose 53 of 53 candidates by entropy\n" in out
    assert "warning: --budget 99: there are no more" in err
    assert not set(pyarrow.parquet.read_table(tmp_path / "rest.parquet")["id"].to_pylist()) & set(expected)


def test_labels_to_check(scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, scored, "--budget", 5, "--doubtful", "--output", tmp_path / "check.csv")
    assert code == 0
    assert out.startswith("chose 5 of 5 candidates by nll\n")
    held = pyarrow.parquet.read_table(scored / "scores").to_pylist()
    expected = sorted((row for row in held if row["nll"] is not None), key=lambda row: -row["nll"])[:5]
    written = pyarrow.csv.read_csv(tmp_path / "check.csv").to_pylist()
    assert [(row["id"], row["label"]) for row in written] == [(row["id"], row["label"]) for row in expected]
    assert list(written[0]) == ["rank", "id", "source", "row", "prediction", "confidence", "label", "nll"]
    code, _, err = run(
        capsys, scored, "--budget", 5, "--doubtful", "--score", "entropy", "--output", tmp_path / "c.csv"
    )
    assert code == 2
    assert "--score entropy: not with --doubtful" in err


def test_a_round_with_a_tool(scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Handed over, labelled there but for one, and given back: that one is chosen again, the others are not."""
    command = (scored, "--budget", 7, "--format", "label-studio", "--output", tmp_path / "chosen.csv")
    code, out, err = run(capsys, *command)
    assert (code, err) == (0, "")
    assert out.splitlines()[1:] == [
        f"{tmp_path}/chosen-label-studio/",
        *(f"{tmp_path}/chosen.{e}" for e in ("csv", "parquet")),
    ]
    chosen = pyarrow.csv.read_csv(tmp_path / "chosen.csv")
    assert "digest" not in chosen.column_names
    tasks = json.loads((tmp_path / "chosen-label-studio/tasks.json").read_text())
    assert [task["data"]["regrad_id"] for task in tasks] == chosen["id"].to_pylist()
    for task in tasks[1:]:
        task["annotations"] = [{"result": task["predictions"][0]["result"]}]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    again = (scored, "--budget", 2, "--labelled", tmp_path / "export.json", "--output", tmp_path / "next.csv")
    code, out, _ = run(capsys, *again)
    assert code == 0
    assert "(Label Studio): 6 labelled images, 1 image without a label\n" in out
    following = pyarrow.csv.read_csv(tmp_path / "next.csv")["id"].to_pylist()
    assert following[0] == chosen["id"].to_pylist()[0]
    assert following[1] not in chosen["id"].to_pylist()


def test_predictions_that_were_accepted(scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = (scored, "--budget", 7, "--format", "fiftyone", "--output", tmp_path / "chosen.csv")
    assert run(capsys, *command)[0] == 0
    back = ("--labelled", tmp_path / "chosen-fiftyone/labels.json", "--output", tmp_path / "next.csv")
    for accept, candidates in (((), 60), (("--accept-predictions",), 53)):
        code, out, _ = run(capsys, scored, "--budget", 99, *back, *accept)
        assert code == 0
        assert f"chose {candidates} of {candidates} candidates" in out


def test_images_that_are_gone_are_told(scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar(tmp_path / "in/b.tar", digits(41)[40:])
    code, _, err = run(capsys, scored, "--budget", 60, "--format", "huggingface", "--output", tmp_path / "chosen.csv")
    assert code == 0
    assert f"left out of {tmp_path}/chosen-huggingface: 19 images not in the sources any more" in err


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("diversity", ["k-center", "k-means++"])
def test_a_diverse_budget(scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], diversity: str) -> None:
    command = (scored, "--budget", 6, "--balance", "--diversity", diversity, "--output", tmp_path / "chosen.csv")
    code, _, err = run(capsys, *command)
    assert (code, err) == (0, "")
    first = pyarrow.csv.read_csv(tmp_path / "chosen.csv")
    assert len(set(zip(first["source"].to_pylist(), first["row"].to_pylist(), strict=True))) == 6
    assert first["entropy"].to_pylist() == sorted(first["entropy"].to_pylist(), reverse=True)
    (tmp_path / "in/b.tar").unlink()
    code, _, err = run(capsys, *command)
    assert code == 1
    assert "b.tar" in err


def test_features_are_what_the_last_layer_is_given(scored: Path) -> None:
    info = json.loads((scored / "run.json").read_text())
    source = str(scored.parent / "in/a.parquet")
    (item,) = features.tasks(info, {source: [(row, digits(40)[row][0], place) for place, row in enumerate((3, 1, 39))]})
    answer = features.compute(item)
    network, known = build()
    network.eval()
    classifier = features.load_classifier(json.dumps(info["config"]), info["model"]["fingerprint"])
    images = torch.stack([classifier.preprocess(opened(digits(40)[row][1])) for row in (3, 1, 39)])
    with torch.no_grad():
        hidden = network.features((images - known["mean"]) / known["std"]).flatten(1)
    found = np.array([numbers for _, numbers in sorted(answer["features"])])
    assert answer["lost"] == 0
    np.testing.assert_allclose(found, hidden.numpy(), rtol=1e-5, atol=1e-6)
    with pytest.raises(UsageError, match="is not the model of the run any more"):
        features.load_classifier(json.dumps(info["config"]), "another")
    divided = Classifier.load("tests.shards:build", temperature=2.0)
    features.load_classifier(json.dumps(info["config"] | {"temperature": 2.0}), divided.fingerprint)


def opened(content: bytes) -> Any:
    import io

    from PIL import Image

    return Image.open(io.BytesIO(content))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "required: --budget"),
        (("--budget", "0"), "--budget 0: choose at least one image"),
        (("--budget", "3", "--diversity", "many"), "invalid choice: 'many'"),
        (("--budget", "3", "--score", "energy"), "has the scores entropy"),
        (("--budget", "3", "--labelled", "nowhere.csv"), "--labelled nowhere.csv: no such file"),
        (("--budget", "3", "--output", "x.txt"), "a name that ends in .csv or .parquet"),
        (("--budget", "3", "--format", "coca"), "invalid choice: 'coca' (choose from coco, csv"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(
    scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    code, out, err = run(capsys, scored, "--output", tmp_path / "out.csv", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
