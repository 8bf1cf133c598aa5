"""`regrad calibrate` as it is called, and what scoring does with the file: the whole road, on digits."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import nn

from regrad import Classifier, Scorer, UsageError, table
from regrad.__main__ import main
from regrad.calibration import Calibration
from regrad.ledger import merge
from regrad.pipeline import ScoreImages
from tests.runs.test_calibrate import run
from tests.shards import digits, write_parquet

FLAGS = ("--model", f"{__name__}:linear", "--scores", "entropy,margin", "--ray-address", "none", "--unit-rows", "200")


def linear() -> tuple[nn.Module, dict[str, Any]]:
    """A network that takes the digits, untrained."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), {"image_size": 8, "channels": 1}


@dataclass(frozen=True)
class Made:
    """Weights, 600 digits to calibrate on and 597 new ones, and the calibration."""

    weights: str
    new: str
    run: str
    file: str

    def score(self, output: Path, *more: str, weights: str = "") -> int:
        return main(["score", self.new, *FLAGS, "--weights", weights or self.weights, *more, "--output", str(output)])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder, rows = tmp_path_factory.mktemp("calibrated"), digits(1797)
    held = Made(*(str(folder / name) for name in ("weights.safetensors", "new.parquet", "run", "calibration.json")))
    classifier = Classifier.load(f"{__name__}:linear")
    images = torch.stack([classifier.preprocess(Image.open(io.BytesIO(image))) for _, image, _ in rows[:600]])
    x = torch.cat([images.flatten(1), torch.ones(600, 1)], 1)
    y = nn.functional.one_hot(torch.tensor([label for *_, label in rows[:600]]), 10).float()
    solved = 25 * torch.linalg.solve(x.T @ x + 0.1 * torch.eye(65), x.T @ y)  # far too sure
    safetensors.torch.save_file(
        {"1.weight": solved[:64].T.contiguous(), "1.bias": solved[64].contiguous()}, held.weights
    )
    write_parquet(folder / "known.parquet", rows[600:1200])
    write_parquet(folder / "new.parquet", rows[1200:])
    arguments = [*FLAGS, "--weights", held.weights, "--logits", "--output", held.run]
    assert main(["score", str(folder / "known.parquet"), *arguments]) == 0
    assert main(["calibrate", held.run, "--output", held.file]) == 0
    return held


def test_it_writes_one_file_and_says_what_came_of_it(
    write_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held, file = run(write_run).output, str(tmp_path / "deep/calibration.json")
    assert main(["calibrate", held, "--output", file]) == 0
    made = json.loads(Path(file).read_text())
    assert made["fitted_on"]["output"] == held
    assert made["model"] == {"spec": "tests:network", "network": "f" * 64, "fingerprint": None, "classes": 10}
    first, before, after, place = capsys.readouterr().out.splitlines()
    assert first.startswith(f"temperature {made['temperature']:.4g}, of 300 images; of the other 300 it would be ")
    assert [line[:11] for line in (before, after)] == ["before NLL ", "after  NLL "]
    assert place == file
    assert Calibration.read(file).temperature == made["temperature"]
    assert [path.name for path in Path(file).parent.iterdir()] == ["calibration.json"]


def test_it_refuses_with_one_line(write_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unlabelled = write_run("plain", {"entropy": np.ones(9)})
    for arguments, message in (
        ([unlabelled, "--output", str(tmp_path / "c.json")], "the run kept no logits"),
        ([unlabelled, "--output", str(tmp_path / "c.txt")], "a file whose name ends in .json"),
        ([str(tmp_path / "nowhere"), "--output", str(tmp_path / "c.json")], "no run.json here"),
    ):
        assert main(["calibrate", *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert not list(tmp_path.glob("c.*"))


def test_scores_are_of_the_files_temperature_and_sets_hold_the_labels(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibration = Calibration.read(made.file)
    assert calibration.temperature > 1.2
    assert made.score(tmp_path / "plain", "--logits") == 0
    assert made.score(tmp_path / "out", "--temperature", made.file, "--coverage", "0.8") == 0
    plain, rows = (table.read(str(tmp_path / name)).sort_by("row") for name in ("plain", "out"))
    logits = np.array(plain["logits"].to_pylist()) / calibration.temperature
    losses = np.log(np.exp(logits).sum(1, keepdims=True)) - logits
    np.testing.assert_allclose(rows["confidence"].to_numpy(), np.exp(-losses.min(1)), rtol=1e-5)
    bound = calibration.loss_bound(0.8)
    wanted = [[int(c) for c in np.argsort(row) if row[c] <= bound] for row in losses]
    assert rows["prediction_set"].to_pylist() == wanted
    assert {len(some) for some in wanted} >= {0, 1}
    labels = rows["label"].to_pylist()
    covered = sum(label in some for label, some in zip(labels, wanted, strict=True)) / len(labels)
    assert covered >= 0.8 - 4 * np.sqrt(0.16 / 300 + 0.16 / 597)  # by chance, of 300 images and of these 597
    info = table.read_run(str(tmp_path / "out"))
    assert (info["config"]["temperature"], info["config"]["coverage"]) == (made.file, 0.8)
    assert info["model"]["temperature"] == calibration.temperature
    # What reads and moves rows goes on working.
    monkeypatch.setattr(merge, "AT_LEAST", 2)
    for command in ("compact", "check", "status"):
        assert main([command, str(tmp_path / "out")]) == 0
    assert table.read(str(tmp_path / "out")).sort_by("row")["prediction_set"].to_pylist() == wanted
    report = ["--id", str(tmp_path / "out"), "--no-thumbnails", "--output", str(tmp_path / "report")]
    assert main(["report", *report]) == 0
    known = json.loads((tmp_path / "report/report.json").read_text())["id"]
    assert known["temperature"] == calibration.temperature
    assert known["sets"]["mean_size"] == pytest.approx(np.mean([len(some) for some in wanted]))
    assert known["sets"]["empty"] == pytest.approx(np.mean([not some for some in wanted]))
    assert known["covered"]["share"] == pytest.approx(covered)
    page = (tmp_path / "report/report.html").read_text()
    assert "Prediction sets for 80 %" in page
    assert f"<td>{known['sets']['mean_size']:.2f}</td>" in page
    chosen = ["--budget", "3", "--diversity", "k-center", "--ray-address", "none"]
    assert main(["select", str(tmp_path / "out"), *chosen, "--output", str(tmp_path / "label.csv")]) == 0


def test_a_file_and_its_number_are_the_same_scores(made: Made, tmp_path: Path) -> None:
    temperature = Calibration.read(made.file).temperature
    for name, value in (("file", made.file), ("number", repr(temperature))):
        assert made.score(tmp_path / name, "--temperature", value, "--limit", "30") == 0
    file, number = (table.read(str(tmp_path / name), ["row", "entropy"]).sort_by("row") for name in ("file", "number"))
    assert file.equals(number)
    settings = {"weights": made.weights, "temperature": made.file, "coverage": 0.8}
    scored = ScoreImages(f"{__name__}:linear", ["entropy"], id_column="id", **settings)
    rows = pyarrow.parquet.read_table(made.new).slice(0, 30)
    added = scored({name: np.array(rows[name].to_pylist(), object) for name in ("id", "image")})
    np.testing.assert_allclose(added["entropy"], file["entropy"].to_numpy(), rtol=1e-6)
    assert (added["prediction_set"].shape, added["prediction_set"].dtype) == ((30, 10), np.int32)
    assert ((added["prediction_set"][:, 0] == added["prediction"]) | (added["prediction_set"][:, 0] == -1)).all()


def test_another_network_setting_or_file_is_refused(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = str(tmp_path / "other.safetensors")
    weights = safetensors.torch.load_file(made.weights)
    safetensors.torch.save_file(weights | {"1.bias": weights["1.bias"] + 0.1}, other)
    capsys.readouterr()
    refused = {
        "the calibration is of another network": (["--temperature", made.file], other),
        "coverage 0.8: needs --temperature FILE": (["--coverage", "0.8"], ""),
        "coverage 0.999: needs 999 images, there are 300": (["--temperature", made.file, "--coverage", "0.999"], ""),
        "not a file of regrad calibrate": (["--temperature", f"{made.weights}.json"], ""),
    }
    Path(f"{made.weights}.json").write_bytes(Path(made.weights).read_bytes())
    for message, (flags, weights_file) in refused.items():
        assert made.score(tmp_path / "none", *flags, weights=weights_file) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert not (tmp_path / "none").exists()
    assert main(["calibrate", made.run, "--output", str(tmp_path / "again.json")]) == 0
    assert (tmp_path / "again.json").read_text() == Path(made.file).read_text()  # the same every time
    # An output holds one calibration, by its content and not its name.
    for file in (made.file, str(tmp_path / "again.json")):
        limit = "200" if file == made.file else "400"  # a unit of either name
        assert made.score(tmp_path / "out", "--temperature", file, "--limit", limit) == 0
    assert main(["check", str(tmp_path / "out")]) == 0
    held = json.loads(Path(made.file).read_text())
    held["quantiles"]["values"][-1] += 1
    (tmp_path / "again.json").write_text(json.dumps(held))
    assert made.score(tmp_path / "out", "--temperature", str(tmp_path / "again.json"), "--limit", "400") == 2
    assert main(["calibrate", str(tmp_path / "out"), "--output", str(tmp_path / "c.json")]) == 2


def test_the_library_takes_the_file_too(made: Made) -> None:
    classifier = Classifier.load(f"{__name__}:linear", made.weights, temperature=made.file)
    assert classifier.temperature == Calibration.read(made.file).temperature
    assert classifier.network_fingerprint != Classifier.load(f"{__name__}:linear", made.weights).network_fingerprint
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    columns = Scorer(classifier, ["entropy"], coverage=0.9)(images, list("abcd"))
    assert columns["prediction_set"].shape == (4, 10)
    with pytest.raises(UsageError, match="needs --temperature FILE"):
        Scorer(Classifier.load(f"{__name__}:linear", made.weights), ["entropy"], coverage=0.9)
