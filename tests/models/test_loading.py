"""Networks and weights by name: what is loaded, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from regrad.classifier import Classifier
from regrad.errors import UsageError
from tests.test_classifier import TINY, bare


def test_weights_load_from_safetensors_and_from_state_dicts(tmp_path: Path) -> None:
    state = {name: torch.rand_like(value.float()) for name, value in bare().state_dict().items()}
    state["1.num_batches_tracked"] = torch.tensor(3)
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "w.pt")
    loaded = [Classifier.load(TINY, weights=str(tmp_path / name)) for name in ("w.safetensors", "w.pt")]
    for classifier in loaded:
        torch.testing.assert_close(classifier.network.state_dict()["4.weight"], state["4.weight"])
    assert loaded[0].fingerprint == loaded[1].fingerprint


def test_a_downloaded_pickle_that_executes_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "executed"

    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (marker,)

    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.save({"fc.weight": Attack()}, tmp_path / "hub/checkpoints/resnet18-f37072fd.pth")
    with pytest.raises(UsageError, match=r"resnet18@IMAGENET1K_V1: cannot fetch the weights: .*Weights only"):
        Classifier.load("torchvision:resnet18@IMAGENET1K_V1")
    assert not marker.exists()


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    state = dict(bare().state_dict())
    state["head.bias"] = state.pop("4.bias")
    state["0.weight"] = torch.zeros(4, 1, 3, 3)
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(UsageError) as caught:
        Classifier.load(TINY, weights=str(tmp_path / "w.safetensors"))
    assert "missing 4.bias; unexpected head.bias; shape 0.weight (4, 1, 3, 3) instead of (4, 3, 3, 3)" in str(
        caught.value
    )


def test_a_torchvision_checkpoint_brings_its_own_class_count(tmp_path: Path) -> None:
    import torchvision

    safetensors.torch.save_file(
        torchvision.models.shufflenet_v2_x0_5(num_classes=7).state_dict(), tmp_path / "m.safetensors"
    )
    classifier = Classifier.load(
        "torchvision:shufflenet_v2_x0_5", weights=str(tmp_path / "m.safetensors"), image_size=64
    )
    assert classifier.num_classes == 7
    assert classifier.mean == (0.485, 0.456, 0.406)


def test_a_job_works_on_where_its_folder_was_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PWD", str(folder))
    folder.rmdir()  # as Ray does on a disk that two nodes share
    folder.mkdir()
    (folder / "replaced.py").write_text("from tests.test_classifier import bare\n")
    monkeypatch.setattr("sys.path", list(sys.path))
    assert isinstance(Classifier.load("replaced:bare", image_size=8, mean=0.5, std=0.5).network, nn.Sequential)
