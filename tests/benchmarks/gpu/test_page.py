"""docs/gpu.md: what it says before and after a measurement."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from regrad.benchmarks.gpu import parts
from regrad.benchmarks.gpu.page import SHOWN, gpu_page
from regrad.commands.clone import benchmark
from tests.data import ROOT

ROW = {"name": "exact", "does": "all", "images": 2, "ratio": 3.21, "low": 3.0, "high": 3.5, "scaled_from": None}
ROW |= {"peak_mb": 12.0, "error": {"median": 1e-4, "max": 2e-4}, "plan": None, "cannot": None}
PIECES: dict[str, list[dict[str, object]]] = {
    "machine": [{"date": "2027-01-02", "device": "a GPU"}],
    "train": [{"epoch": 1, "of": 2, "loss": 1.0, "seconds": 3.0}, {"accuracy": 0.91, "test_images": 5000}],
    "engines": [{"describe": "a case", "rows": [ROW], "forward_seconds_per_image": 0.5}],
    "equality": [{"case": "a", "engine": "exact", "same_prediction": 1.0, "differences": {"x": 1e-7, "y": 2e-7}}],
    "batches": [
        {
            "case": "a",
            "engine": "exact",
            "batch": 4,
            "budget": None,
            "images_per_second": 7.0,
            "peak_mb": 1,
            "planned_mb": 2,
        },
        {"case": "a", "engine": "exact", "batch": 8, "budget": 10**9, "cannot": "out of memory"},
    ],
    "feeding": [{"network": "n", "score": "entropy", "threads": 2, "images_per_second": 123.4, "waited": 0.25}],
    "profiles": [
        {"case": "a", "engine": "exact", "images": 2, "seconds": 0.5, "busy": 0.25, "launches": 9, "dearest": []}
    ],
}


def results(**ended: str) -> dict[str, object]:
    told = {
        name: {"does": f"of {name}", "date": "2026-11-28", "seconds": 1.0, "ended": "whole", "pieces": PIECES[name]}
        for name in SHOWN
    }
    for name, how in ended.items():
        told[name]["ended"] = how
    return {"minutes": 8, "tiny": False, "parts": told}


def test_the_page_in_the_repository_is_what_was_measured_or_says_that_nothing_was() -> None:
    text = (ROOT / "docs/gpu.md").read_text()
    assert "Not measured yet" not in text or text == gpu_page(None)
    assert text.startswith(gpu_page(None)[:500])


def test_everything_measured_is_shown(tmp_path: Path) -> None:
    (tmp_path / parts.RESULTS).write_text(json.dumps(results(feeding="stopped after 9 s")))
    target = tmp_path / "gpu.md"
    assert benchmark.main(["gpu", "--render", str(tmp_path), "--output", str(target)]) == 0
    text = target.read_text()
    assert "Not measured yet" not in text
    for said in (
        "date 2027-01-02, device a GPU",
        "1 of 2 epochs in 3 s, 91.00% of 5000 test images right.",
        "| exact | 3.21 | 3 to 3.5 |",
        "| a | exact | 2 | y | 2.0e-07 | 100.0% |",
        "| a | exact | 4 | half of what is free | 7 | 1 | 2 |",
        "| a | exact | 8 | 1000 | cannot: out of memory |",
        "| n | entropy | 2 | 123.4 | 25% |",
        "| a | exact | 2 | 0.5 | 50% | 9 |",
        "This part is not whole: stopped after 9 s.",
    ):
        assert said in text, said
    assert [*SHOWN] == [*parts.PARTS]


def test_the_command_measures_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for name in [name for name in parts.PARTS if name not in ("machine", "train")]:
        monkeypatch.delitem(parts.PARTS, name)  # type: ignore[arg-type]
    assert benchmark.main(["gpu", "--output", str(tmp_path / "out"), "--minutes", "1"]) == 0
    assert capsys.readouterr().out.startswith("no GPU: the tiny form, on the CPU\n")
    found = json.loads((tmp_path / "out/gpu.json").read_text())
    assert found["tiny"]
    assert found["parts"]["machine"]["pieces"][0]["python"]
    assert "no --images" in gpu_page(found)
