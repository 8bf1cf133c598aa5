"""Real images end to end, through the jobs a user runs: MNIST against Fashion-MNIST and Omniglot, and CIFAR-10."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from sklearn.metrics import roc_auc_score

from regrad.commands import report, score, train
from tests.data import data_path

SCORES = "regrad,exgrad,entropy,max_probability"
LIMIT = 100

pytestmark = pytest.mark.data


def _score(source: Path, output: Path, *arguments: str) -> dict[str, Any]:
    command = [str(source), "--output", str(output), "--scores", SCORES, "--limit", str(LIMIT), *arguments]
    assert score.main([*command, "--ray-address", "none"]) == 0
    return json.loads((output / "run.json").read_text())


def test_mnist_against_fashion_mnist_and_omniglot(tmp_path: Path) -> None:
    weights = str(tmp_path / "mnist-cnn.safetensors")
    model = ["--model", "regrad.networks:mnist_cnn", "--weights", weights, "--samples", "2"]
    training = [str(data_path("mnist-train.parquet")), "--model", "regrad.networks:mnist_cnn", "--output", weights]
    assert train.main([*training, "--limit", "3000", "--epochs", "2"]) == 0
    known = _score(data_path("mnist-test.parquet"), tmp_path / "mnist", *model)
    assert known["counts"]["accuracy"] > 0.93
    _score(data_path("fmnist-test.parquet"), tmp_path / "fmnist", *model)
    inverted = ["--transform", "regrad.transforms:invert"]
    drawings = _score(data_path("omniglot-evaluation.parquet"), tmp_path / "omniglot", *model, *inverted)
    assert drawings["counts"]["labels_outside"] > 0.9 * LIMIT
    ood = [f"{name}={tmp_path / name}" for name in ("fmnist", "omniglot")]
    assert report.main(["--id", str(tmp_path / "mnist"), "--ood", *ood, "--output", str(tmp_path / "report")]) == 0
    numbers = json.loads((tmp_path / "report/report.json").read_text())
    for name in ("fmnist", "omniglot"):
        for column in SCORES.split(","):
            # The independent check: scikit-learn on the Parquet files.
            a, b = (pyarrow.parquet.read_table(tmp_path / run / "scores")[column].to_numpy() for run in ("mnist", name))
            wanted = roc_auc_score([0] * len(a) + [1] * len(b), [*a, *b])
            got = numbers["scores"][column]["ood"][name]["auroc"]
            assert got == pytest.approx(wanted, abs=1e-12)
            assert got > 0.8, (column, name)


def test_a_pretrained_cifar10_network(tmp_path: Path) -> None:
    weights = str(data_path("weights/resnet20-cifar10.safetensors"))
    run = _score(
        data_path("cifar10-test.parquet"),
        tmp_path / "cifar10",
        *["--model", "regrad.networks:resnet20_cifar10", "--weights", weights, "--samples", "2"],
    )
    # 91.73 % on all 10,000 images; four standard errors of these images
    assert run["counts"]["accuracy"] == pytest.approx(0.9173, abs=4 * (0.9173 * 0.0827 / LIMIT) ** 0.5)
    assert run["plan"]["engine"] == "exact"
    assert run["plan"]["first_layer"] > 1
