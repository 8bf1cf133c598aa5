"""What a sweep found, as Markdown: a row a family, and what was refused or failed by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from regrad.experiments.sweep.trial import ENGINES

EQUAL = 1e-4  # relative


def families_as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Counts, then the table, then reasons."""
    families: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        families.setdefault((row["library"], row["family"]), []).append(row)
    short = sum("blocks" in row for row in rows)
    lines = [
        f"{len(rows)} networks of {len(families)} families, {short} of them with few of their blocks.",
        "",
        "| family | tried | auto | reference | exact | sketch | equal to `reference` |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (library, family), members in sorted(families.items()):
        cells = [outcomes_of(members, engine) for engine in ENGINES]
        lines.append(f"| {library} {family} | {len(members)} | {' | '.join(cells)} | {equality(members)} |")
    reasons = Counter(
        (result.get("engine", "all"), result["outcome"], result["reason"])
        for row in rows
        for result in row["results"]
        if result["outcome"] != "scored"
    )
    lines += [
        "",
        *(f"- {engine} {outcome} {count}: {text}" for (engine, outcome, text), count in reasons.most_common()),
    ]
    return "\n".join(lines)


def outcomes_of(rows: Sequence[dict[str, Any]], engine: str) -> str:
    """How many were scored, refused and failed by ``engine``, and how many were stopped before it."""
    outcomes = Counter(
        next((result["outcome"] for result in row["results"] if result.get("engine", engine) == engine), "not reached")
        for row in rows
    )
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items(), reverse=True))


def equality(rows: Sequence[dict[str, Any]]) -> str:
    """How many of the exact engine's scores are those of ``reference``, and the largest difference."""
    errors = [
        result["error"]
        for row in rows
        for result in row["results"]
        if result.get("engine") == "exact" and "error" in result
    ]
    if not errors:
        return ""
    return f"{sum(error <= EQUAL for error in errors)} of {len(errors)}, at most {max(errors):.0e}"
