"""Operations seen one at a time: what they cost by PyTorch's own counter, and what looking at them does not import."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from regrad.network.copies import plain_attention
from regrad.network.operations import Multiplications
from tests.data import ROOT
from tests.networks import NETWORKS, build, copies

SCORED = """
import sys
import torch
from torch import nn
from regrad import Classifier, Scorer, networks

network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
classifier = Classifier(network, image_size=8, channels=1, mean=0.5, std=0.5)
for engine in ("exact", "sketch"):
    scorer = Scorer(classifier, ("regrad", "entropy"), engine=engine, device="cpu")
    assert scorer(torch.rand(2, 1, 8, 8), ["a", "b"])["regrad"].isfinite().all()
    assert scorer.plan["cost"]
    if engine == "exact":  # a forward-mode derivative asks the compiler
        print(*sorted({"torch._dynamo", "torch._inductor", "sympy"} & set(sys.modules)))
"""


@pytest.mark.parametrize("name", NETWORKS)
def test_multiplications_are_half_of_pytorchs_flops(name: str) -> None:
    network, x = build(name), copies(images=2, number=1)[:, 0]
    theirs = FlopCounterMode(display=False)
    with torch.no_grad(), plain_attention():
        with theirs:
            network(x)
        with Multiplications() as ours:
            network(x)
    assert ours.total == theirs.get_total_flops() / 2 > 0


def test_a_start_imports_neither_compiler_nor_symbols_and_says_nothing() -> None:
    ended = subprocess.run([sys.executable, "-c", SCORED], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "\n", "")
