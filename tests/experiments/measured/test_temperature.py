"""The same network at several temperatures: a column for each."""

from __future__ import annotations

from pathlib import Path

import pytest

from regrad.experiments.material import image_sets
from regrad.experiments.measured import temperature
from regrad.experiments.measured.scoring import Study
from tests.data import data_path


@pytest.mark.data
def test_every_temperature_is_a_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temperature, "TEMPERATURES", (1, 2))  # each costs a scorer of its own
    monkeypatch.setattr(image_sets, "SHARD_ROWS", 12)  # whole shards are scored
    data = data_path("weights/resnet20-cifar10.safetensors").parents[1]
    found = temperature.temperature(Study(str(data), str(tmp_path), images=12, seeds=1), temperature.PAIRS[-1:])
    cells = {(r.experiment, r.row, r.metric): r.mean for r in found}
    columns = [f"T = {divisor:g}" for divisor in temperature.TEMPERATURES]
    assert list(dict.fromkeys(r.experiment for r in found)) == columns
    assert {r.group for r in found} == {"C10, ResNet-20, C10→FMNIST"}
    for column in columns:
        assert cells[column, "Max logit", "AUROC"] == cells["T = 1", "Max logit", "AUROC"]  # the order stays
        ahead = cells[column, "REGrad*", "AUROC"] - cells[column, "Entropy", "AUROC"]
        assert cells[column, "REGrad* − Entropy", "AUROC"] == pytest.approx(ahead)
    assert len({cells[column, temperature.CALIBRATION, "ECE"] for column in columns}) == len(columns)
