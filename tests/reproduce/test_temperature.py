"""Networks with divided logits: predictions stay, and the table has a column for each temperature."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from regrad import Classifier
from regrad.reproduce import models, temperature
from regrad.reproduce.packs import Packs
from regrad.reproduce.scoring import Study
from tests.data import data_path


@pytest.mark.data
def test_logits_are_divided_and_nothing_else(tmp_path: Path) -> None:
    packs = Packs(str(data_path("weights/resnet20-cifar10.safetensors").parents[1]), str(tmp_path))

    def network(name: str) -> torch.nn.Module:
        uri = models.weights(name, 0, packs, str(tmp_path))
        return Classifier.load(models.MODELS[name].spec, uri).network

    images = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        logits = network("resnet20-cifar10")(images)
        torch.testing.assert_close(network("resnet20-cifar10-t4")(images), logits / 4)
        torch.testing.assert_close(network("resnet20-cifar10-t0.5")(images), 2 * logits)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "resnet20-cifar10-t0.5-seed0.safetensors",
        "resnet20-cifar10-t4-seed0.safetensors",
    ]


@pytest.mark.data
def test_every_temperature_is_a_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_path("weights/resnet20-cifar10.safetensors").parents[1]
    monkeypatch.setattr(temperature, "EXPERIMENTS", temperature.EXPERIMENTS[-1:])
    found = temperature.temperature(Study(str(data), str(tmp_path), images=12, seeds=1))
    cells = {(r.experiment, r.row, r.metric): r.mean for r in found}
    columns = [f"T = {divisor:g}" for divisor in models.TEMPERATURES]
    assert list(dict.fromkeys(r.experiment for r in found)) == columns
    assert {r.group for r in found} == {"C10, ResNet-20, C10→FMNIST"}
    for column in columns:
        assert cells[column, "Max logit", "AUROC"] == cells["T = 1", "Max logit", "AUROC"]  # the order stays
        ahead = cells[column, "REGrad*", "AUROC"] - cells[column, "Entropy", "AUROC"]
        assert cells[column, "REGrad* − Entropy", "AUROC"] == pytest.approx(ahead)
    assert len({cells[column, temperature.CALIBRATION, "ECE"] for column in columns}) == len(columns)
