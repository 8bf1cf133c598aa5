"""The demo, whole, and the pieces it is made of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from regrad.commands import demo
from regrad.reading.formats import fetch_images
from regrad.reading.inputs import list_sources
from tests.installed import Installed

ROOT = Path(__file__).resolve().parents[2]
SETS = {"digits": 300, "photos": 100, "upside-down": 149}
#: The demo on fewer images than its own 797, 400 and 396, and by their number on Ray or not: on a slow machine of two
#: cores it is the 797 digits that are scored there.
SMALLER = """
import sys
from regrad.cluster import here
from regrad.commands import demo

every = demo.digits
demo.digits = lambda: tuple(each[: demo.TRAINING_IMAGES + 300] for each in every())
demo.PATCHES = 100
here.is_meant = lambda job: here.expected_images(job.plan.pending)[0] < 200
sys.exit(demo.main([]))
"""


def test_the_network_learns_digits_it_is_not_shown() -> None:
    images, labels = demo.digits()
    assert images.shape == (1797, 8, 8)
    assert images.max() == 255
    threads = torch.get_num_threads()
    try:
        state = demo.train(images[:400], labels[:400])
    finally:
        torch.set_num_threads(threads)
    network, known = demo.network()
    network.load_state_dict(state)
    network.eval()
    inputs = (torch.from_numpy(images[1000:])[:, None] / 255 - known["mean"]) / known["std"]
    with torch.no_grad():
        predictions = network(inputs).argmax(1).numpy()
    assert (predictions == labels[1000:]).mean() > 0.9
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())


def test_patches_are_pieces_of_photographs() -> None:
    patches = demo.patches()
    assert patches.shape == (400, 8, 8)
    assert patches.dtype == np.uint8
    assert len(np.unique(patches, axis=0)) > 300


@pytest.mark.parametrize("form", ["tar", "parquet", "folder"])
def test_shards_give_their_pictures_back(form: str, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8)
    path = tmp_path / {"tar": "x.tar", "parquet": "x.parquet", "folder": "x"}[form]
    labels = () if form == "parquet" else (np.arange(12) // 6,)  # folders sort by class, so classes stand in order
    source = getattr(demo, f"write_{form}")(path, images, *labels)
    ids = {sample.row: str(sample.id) for sample in list_sources([source])[0].open().rows()}
    found = dict(fetch_images(source, ids))
    assert sorted(found) == list(range(12))
    for row, encoded in found.items():
        (tmp_path / "picture.png").write_bytes(encoded)
        assert np.array_equal(np.asarray(Image.open(tmp_path / "picture.png")), images[row])


def scores(folder: Path, name: str) -> np.ndarray:
    return pyarrow.parquet.read_table(folder / "scores" / name / "scores", columns=["regrad"])["regrad"].to_numpy()


def test_the_demo_of_the_wheel(installed: Installed, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    result = installed.run("python", "-c", SMALLER, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr

    shown = [line for line in result.stdout.splitlines() if line.startswith("$ regrad ")]
    assert [line.split()[2] for line in shown] == ["score"] * 3 + ["report"]
    assert result.stdout.rstrip().endswith(f"Open {folder / 'report/report.html'}")

    report = json.loads((folder / "report/report.json").read_text())
    assert report["id"]["images"] == SETS["digits"]
    assert report["id"]["accuracy"] > 0.95
    assert {run["name"]: run["images"] for run in report["ood"]} == {
        name: SETS[name] for name in ("photos", "upside-down")
    }
    for name in ("photos", "upside-down"):
        known, unknown = scores(folder, "digits"), scores(folder, name)
        expected = roc_auc_score([0] * len(known) + [1] * len(unknown), np.r_[known, unknown])
        assert report["scores"]["regrad"]["ood"][name]["auroc"] == pytest.approx(expected, abs=1e-12)
        assert expected > 0.85
    html = (folder / "report/report.html").read_text()
    assert html.count("data:image/webp;base64,") == 3 * 48
    assert "no picture:" not in html


def test_what_goes_wrong_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # other tests may have started one
    monkeypatch.setattr(demo, "EPOCHS", 1)
    assert demo.main([str(tmp_path / "demo")]) == 1
    assert capsys.readouterr().err.startswith("error: no Ray cluster at 127.0.0.1:1")
