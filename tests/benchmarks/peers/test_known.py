"""The commands of the contenders."""

from __future__ import annotations

import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from regrad.benchmarks.peers.counted import count_rows, scores_of
from regrad.benchmarks.peers.known import PEERS, SCRIPTS
from regrad.benchmarks.peers.material import write_material
from regrad.benchmarks.peers.watch import LOG, read_seen
from regrad.benchmarks.steady import Work
from regrad.pipeline.options import parse
from regrad.scores import registry
from tests.shards import digits, write_parquet

WORK = Work("tiny", "tests.shards:build", "entropy", 2, 50, batch=16)


def test_every_script_is_there_and_told_the_same(tmp_path: Path) -> None:
    for peer in PEERS[2:]:
        python, script, place, output, settings = peer.command("python3", tmp_path, tmp_path / "out", WORK)
        assert (python, Path(script).parent, place) == ("python3", SCRIPTS, str(tmp_path / peer.reads))
        assert Path(script).exists()
        assert output == str(tmp_path / "out")
        told = json.loads(Path(settings).read_text())
        assert told["scores"] == ["entropy", "seen"]
        assert (told["model"], told["samples"], told["batch"], told["blocks"]) == ("tests.shards:build", 2, 16, 4)


def test_the_command_of_regrad_is_one_that_it_takes(tmp_path: Path) -> None:
    command = PEERS[0].command("python3", tmp_path, tmp_path / "out", WORK)
    assert command[1:4] == ["-m", "regrad", "score"]
    options = parse(command[4:], "score", None)
    assert (options.scores, options.samples, options.unit_rows) == (["entropy", "seen"], 2, 16)
    assert options.ray_address == "none"


def test_the_dataloader_scores_every_image_and_tells_when(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = replace(WORK, samples=0)
    material = write_material(tmp_path / "in", [write_parquet(tmp_path / "a.parquet", digits(50))], 50, 16)
    (peer,) = (peer for peer in PEERS if peer.name == "DataLoader")
    _, script, *arguments = peer.command("python3", material.folder, tmp_path / "out", work)
    monkeypatch.setattr(registry, "SCORES", dict(registry.SCORES))
    monkeypatch.setattr(sys, "path", [str(SCRIPTS), *sys.path])
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    monkeypatch.delitem(sys.modules, "seen", raising=False)
    monkeypatch.setenv(LOG, str(tmp_path / "seen.log"))
    runpy.run_path(script, run_name="__main__")
    assert count_rows([tmp_path / "out"], "entropy", material.names).scored == 50
    assert len(set(scores_of([tmp_path / "out"], "entropy").values())) > 40
    assert [batch.rows for batch in read_seen(tmp_path / "seen.log")] == [16, 16, 16, 2]
