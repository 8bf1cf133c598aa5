"""Results of the benchmark as text, as Markdown and as a plot."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from regrad.benchmarks import render


def row(name: str, **changed: Any) -> dict[str, Any]:
    plain = {
        "name": name,
        "does": "all classes, layers and copies",
        "cannot": None,
        "ratio": 2.345,
        "low": 2.1,
        "high": 2.6,
        "scaled_from": None,
        "plan": None,
        "images": 4,
        "peak_mb": 12.4,
        "error": {"max": 1.5e-3},
    }
    return plain | changed


RESULT = {
    "describe": "tiny, 8x8, C = 10",
    "forward_seconds_per_image": 0.0123,
    "rows": [
        row("exact"),
        row("reference", scaled_from=(1, 3), error=None, peak_mb=None),
        row("emulated", ratio=None, low=None, high=None),
        row("planned", plan={"engine": "sketch", "cost": {"sketch": 3.21, "exact": 9.0}}),
        row("peer", cannot="ImportError: " + "x" * 100),
    ],
}


def test_cells_say_what_was_measured_and_what_was_not() -> None:
    exact, reference, emulated, planned, peer = map(render.cells, RESULT["rows"])  # type: ignore[arg-type]
    assert exact == ("exact", "2.35", "2.1 to 2.6", "", "4", "12", "1.5e-03", "all classes, layers and copies")
    assert reference[1] == "~2.35"
    assert reference[-1].endswith("; scaled from C = 1 and 3")
    assert reference[5:7] == ("", "")
    assert emulated[1:3] == ("-", "emulated")
    assert planned[3] == "3.21"
    assert peer[:2] == ("peer", "-")
    assert peer[-1] == "cannot: ImportError: " + "x" * 67


@pytest.mark.parametrize("shape", [render.table, render.markdown])
def test_every_row_is_a_line(shape: Any) -> None:
    text = shape(RESULT)
    assert "tiny, 8x8, C = 10" in text.splitlines()[0]
    for entry in RESULT["rows"]:  # type: ignore[attr-defined]
        assert sum(entry["name"] in line.split(" | ")[0].split("  ")[0] for line in text.splitlines()[1:]) >= 1
    if shape is render.markdown:
        lines = [line for line in text.splitlines() if line.startswith("|")]
        assert {line.count("|") for line in lines} == {len(render.HEAD) + 1}


def test_a_plot_has_a_panel_for_each_sweep() -> None:
    sweeps = {
        axis: [{axis: value, "rows": [row("exact", ratio=float(value)), row("peer", ratio=None)]} for value in (2, 10)]
        for axis in ("classes", "samples")
    }
    drawn = ElementTree.fromstring(render.plot(sweeps))
    panels = [part for part in drawn.iter() if part.get("id", "").startswith("axes_")]
    assert len(panels) == 2


def test_the_machine_is_named() -> None:
    about = render.machine(torch.device("cpu"))
    assert about["device"]
    assert about["threads"] == torch.get_num_threads()
    assert about["torch"] == torch.__version__
