"""The benchmark as a user runs it, on a case of no size."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest

from regrad.benchmarks.cases import CASES, Case
from regrad.benchmarks.peers import measure
from regrad.commands.clone import benchmark


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.freeze()  # before each time the garbage is collected, which is not to look at all that the tests hold
    monkeypatch.setitem(CASES, "tiny", Case("tiny", "tests.shards:build", 2, samples=1))


def test_a_table_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "SWEEPS", {"classes": (2, 5), "samples": (0, 1)})
    arguments = ["engine", "--cases", "tiny", "--contenders", "exact 1e-3", "reference", "--rounds", "2", "--sweep"]
    assert benchmark.main([*arguments, "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "tiny, 8x8, C = 10, N = 1, random weights, 2 images at once" in printed
    found = json.loads((tmp_path / "benchmark.json").read_text())
    assert [row["name"] for row in found["cases"][0]["rows"]] == ["exact 1e-3", "reference"]
    assert [case["classes"] for case in found["sweeps"]["classes"]] == [2, 5]
    assert [case["samples"] for case in found["sweeps"]["samples"]] == [0, 1]
    assert (tmp_path / "benchmark.md").read_text().startswith("**tiny, 8x8")
    assert (tmp_path / "benchmark.svg").read_bytes().startswith(b"<?xml")


def test_plans(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["plan", "--units", "20", "200", "--output", str(tmp_path)]) == 0
    assert "| 200 | 20 |" in capsys.readouterr().out
    found = json.loads((tmp_path / "plan.json").read_text())
    assert [(row["units"], row["shards"]) for row in found] == [(20, 2), (200, 20)]
    for row in found:
        assert all(row[name] > 0 for name in ("first", "list", "ledger", "plan", "status"))
        assert 50 < row["peak_mb"] < 1000
    assert (tmp_path / "plan.md").read_text().count("\n") == 3
    assert b"<svg" in (tmp_path / "plan.svg").read_bytes()


def test_weights_are_found_from_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["peers", "--cases", "regrad-resnet20", "--weights", "regrad-resnet20=w.safetensors"]
    (work,) = benchmark.chosen_works(measure.RACES, "peers", benchmark.parser().parse_args(arguments))
    assert work.weights == str(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cases", "huge"], "no case huge; the cases are resnet18"),
        (["--contenders", "magic"], "no contender magic; there are: exact 2e-3"),
        (["--weights", "x"], "'x' is not CASE=URI"),
    ],
)
def test_wrong_names_are_told(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert benchmark.main(["engine", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "--sweep"], "--sweep: of `regrad benchmark engine`, without effect on plan"),
        (["plan", "--swe"], "--sweep: of `regrad benchmark engine`, without effect on plan"),
        (["engine", "--minutes=3"], "--minutes: of `regrad benchmark gpu`, without effect on engine"),
        (
            ["gpu", "--rounds", "2"],
            "--rounds: of `regrad benchmark engine` and `sharing` and `job` and `peers` and `nodes`, without effect on",
        ),
        (["gpu", "--pack", "a", "b"], "--pack: --images names the file to write"),
        (["gpu"], "--output missing"),
    ],
)
def test_flags_of_another_measurement_are_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert benchmark.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_every_flag_has_an_owner_or_is_everyones() -> None:
    flags = {flag for action in benchmark.parser()._actions for flag in action.option_strings if flag.startswith("--")}
    assert set(benchmark.OWNERS) <= flags
    assert flags - set(benchmark.OWNERS) == {"--output", "--help", "--verbose"}
    assert {owner for owners in benchmark.OWNERS.values() for owner in owners} == set(benchmark.MEASURED)
