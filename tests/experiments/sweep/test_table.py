"""What a sweep found, as Markdown."""

from __future__ import annotations

from typing import Any

from regrad.experiments.sweep.table import families_as_markdown


def row(family: str, name: str, *results: dict[str, Any]) -> dict[str, Any]:
    return {"library": "timm", "family": family, "name": name, "results": list(results)}


def scored(engine: str, **more: Any) -> dict[str, Any]:
    return {"engine": engine, "outcome": "scored", **more}


ROWS = [
    row("a", "a1", scored("auto"), scored("reference"), scored("exact", error=1e-6), scored("sketch", error=0.2)),
    row("a", "a2", scored("auto"), scored("reference"), scored("exact", error=3e-3)),
    row("b", "b1", {"outcome": "refused", "reason": "takes no square image"}),
    row("c", "c1", {"engine": "auto", "outcome": "failed", "reason": "no derivative"}, scored("reference")),
]


def test_a_row_a_family_and_every_reason() -> None:
    text = families_as_markdown(ROWS)
    lines = text.splitlines()
    assert lines[0] == "4 networks of 3 families, 0 of them with few of their blocks."
    assert "| timm a | 2 | 2 scored | 2 scored | 2 scored | 1 scored, 1 not reached | 1 of 2, at most 3e-03 |" in lines
    assert "| timm b | 1 | 1 refused | 1 refused | 1 refused | 1 refused |  |" in lines
    assert "- auto failed 1: no derivative" in lines
    assert "- all refused 1: takes no square image" in lines
