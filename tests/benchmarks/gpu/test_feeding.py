"""Images fed to a scorer: how many, how long it waited for them, and that nothing but PyTorch and Pillow is needed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from regrad.benchmarks.gpu import feeding
from regrad.benchmarks.gpu.bench import Bench
from tests.data import ROOT

# What a bare machine has: PyTorch with what it requires, NumPy, Pillow and safetensors.
BARE = ("torch", "torchgen", "numpy", "numpy.libs", "PIL", "pillow.libs", "safetensors", "fsspec", "sympy", "mpmath")
BARE = (*BARE, "networkx", "jinja2", "markupsafe", "filelock", "typing_extensions.py", "setuptools", "nvidia", "triton")
PROGRAM = """
import importlib, sys
from regrad.__main__ import main
from regrad.commands.clone import benchmark
from regrad.benchmarks.gpu import bench, parts
for part in parts.PARTS.values():
    module, _, name = part.function.partition(":")
    assert callable(getattr(importlib.import_module(module), name))
for module in ("pyarrow", "ray", "torchvision", "tenacity"):
    assert module not in sys.modules
from regrad.benchmarks.gpu.feeding import feeding
print(len([*feeding(bench.Bench("cpu", True, ""))]))
"""


def test_decoding_that_is_slow_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    real = feeding.to_compact

    def slow(*arguments: Any) -> Tensor:
        time.sleep(0.03)
        return real(*arguments)

    monkeypatch.setattr(feeding, "to_compact", slow)
    found = [*feeding.feeding(Bench("cpu", True, ""))]
    assert [(piece["score"], piece["threads"]) for piece in found] == [
        (score, threads) for score in ("entropy", "regrad") for threads in (1, 2)
    ]
    one, two = found[:2]
    assert one["waited"] > 0.8
    assert one["images_per_second"] == pytest.approx(1 / 0.03, rel=0.3)
    assert two["images_per_second"] > 1.5 * one["images_per_second"]


def test_pictures_are_jpegs_of_the_size_that_is_scored() -> None:
    network, known = feeding.networks.tiny_resnet()
    classifier = feeding.Classifier(network.eval(), **known)
    for content in feeding._jpegs(classifier, 3):
        assert content.startswith(b"\xff\xd8")
        levels = feeding.to_compact(content, classifier.preprocessing)
        assert levels.shape == (3, *classifier.image_size)
        assert levels.min() < 64 < 192 < levels.max()


def test_a_bare_machine_suffices(tmp_path: Path) -> None:
    packages = Path(torch.__file__).parents[1]
    for name in BARE:
        if (packages / name).exists():
            (tmp_path / name).symlink_to(packages / name)
    for info in packages.glob("*.dist-info"):
        if info.name.split("-")[0] in BARE:
            (tmp_path / info.name).symlink_to(info)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-S", "-c", PROGRAM]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "4\n"), ended.stderr
