"""``regrad train``: weights that the same command gives again, and that ``regrad score`` takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from regrad import Classifier
from regrad.commands.train import main
from tests.shards import digits, write_parquet

SETTINGS = ("--model", "tests.shards:build", "--epochs", "2", "--batch-size", "16", "--learning-rate", "0.02")


def test_weights_are_learned_and_seeded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits() * 4)
    files = [tmp_path / f"{name}.safetensors" for name in "abc"]
    for file, seed in zip(files, "001", strict=True):
        assert main([source, *SETTINGS, "--seed", seed, "--output", str(file)]) == 0
    out = capsys.readouterr().out
    share = float(out.partition("%")[0])
    assert share > 30  # of ten classes
    assert "right of the first 240 training images" in out
    first, again, other = map(safetensors.torch.load_file, files)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    loaded = Classifier.load("tests.shards:build", weights=str(files[0])).network.state_dict()
    assert all(torch.equal(loaded[name], first[name]) for name in first)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--epochs", "0"), "--epochs"),
        (("--learning-rate", "-1"), "--learning-rate"),
        (("--epoch-count", "3"), "--epoch"),
    ],
)
def test_wrong_usage_writes_nothing(
    tmp_path: Path, more: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits(10))
    assert main([source, *SETTINGS, "--output", str(tmp_path / "w.safetensors"), *more]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "w.safetensors").exists()


def test_images_without_a_class_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_parquet(tmp_path / "in.parquet", [(name, image, 77) for name, image, _ in digits(10)])
    assert main([source, *SETTINGS, "--output", str(tmp_path / "w.safetensors")]) == 2
    assert "10 of 10 labels are missing or outside 0..9" in capsys.readouterr().err
