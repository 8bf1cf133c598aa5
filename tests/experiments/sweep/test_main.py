"""The sweep as a command: a process a network, a limit, and going on where it stopped."""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from regrad.experiments.sweep import __main__ as command
from regrad.experiments.sweep.catalogue import Listed

SMALL = Listed("timm", "resnet", "test_resnet")


def test_what_is_in_the_output_is_not_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "sweep.jsonl"
    arguments = ["--output", str(output), "--names", "test_resnet", "--engines", "reference", "exact"]
    assert command.main(arguments) == 0
    (line,) = output.read_text().splitlines()
    assert [result["outcome"] for result in json.loads(line)["results"]] == ["scored", "scored"]
    assert "timm:test_resnet" in capsys.readouterr().out
    assert command.main(arguments) == 0
    assert output.read_text().splitlines() == [line]
    assert capsys.readouterr().out == ""
    assert command.main(["--output", str(output), "--table"]) == 0
    assert "| timm resnet | 1 |" in capsys.readouterr().out


def test_the_process_that_asks_is_as_it_was(tmp_path: Path) -> None:
    logging.disable(logging.NOTSET)
    before = (logging.root.manager.disable, [*warnings.filters])
    assert command.main(["--output", str(tmp_path / "sweep.jsonl"), "--names", "test_resnet", "--engines"]) == 0
    assert (logging.root.manager.disable, [*warnings.filters]) == before


def test_a_network_that_takes_too_long_is_stopped_with_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(item: Listed, engines: tuple[str, ...]) -> Iterator[dict[str, Any]]:
        yield {"side": 32, "parameters": 7}
        time.sleep(60)

    monkeypatch.setattr(command, "trial", slow)
    row = command.tried(SMALL, 1.0)
    assert (row["side"], row["results"], row["stopped"]) == (32, [], "after 1 s")


def test_a_process_that_dies_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def dying(item: Listed, engines: tuple[str, ...]) -> Iterator[dict[str, Any]]:
        import os

        yield {"side": 32, "parameters": 7}
        os._exit(9)

    monkeypatch.setattr(command, "trial", dying)
    row = command.tried(SMALL, 30.0)
    assert row["results"] == [{"outcome": "failed", "reason": "its process ended with 9"}]
    assert "stopped" not in row
    assert "failed (its process ended with 9)" in command.in_one_line(row)
