"""The training recipe: what it reports of each step, and how that is shown."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from regrad.models.training import progress, share_right, train_network


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def two_heaps() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    labels = torch.arange(50) % 2
    return nn.Linear(2, 2), torch.randn(50, 2) + 4 * labels[:, None], labels


def test_every_step_is_reported_with_the_mean_loss_of_its_epoch() -> None:
    network, inputs, labels = two_heaps()
    told: list[tuple[int, int, float]] = []
    train_network(network, inputs, labels, 20, 20, 0.1, report=lambda *step: told.append(step))
    assert [step[:2] for step in told[:6]] == [(1, 20), (1, 40), (1, 50), (2, 20), (2, 40), (2, 50)]
    assert told[-1][2] < told[2][2]
    assert share_right(network, inputs, labels) > 0.9


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    with progress("training", 2, 50) as report:
        for epoch in (1, 2):
            report(epoch, 50, 0.25)
    last = terminal.getvalue().split("\r")[-1]
    assert "training: 100%" in last
    assert "100/100" in last
    assert "epoch 2/2, loss 0.2500" in last


def test_a_line_after_each_epoch_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("training", 2, 50) as report:
        for epoch, done in ((1, 20), (1, 50), (2, 20), (2, 50)):
            report(epoch, done, 0.25)
    assert capsys.readouterr().err.splitlines() == [
        "training: epoch 1/2, loss 0.2500",
        "training: epoch 2/2, loss 0.2500",
    ]
