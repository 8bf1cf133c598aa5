"""What a filter would do, as one HTML page: counts, reasons, and the images on both sides of the edge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from regrad.filter.rules import Rule, Sorting
from regrad.formatting import class_name, count, file_name, percent
from regrad.pages.markup import fill, flatten
from regrad.pages.thumbnails import Thumbnail
from regrad.runs.scored import Run


def headline(sorting: Sorting) -> str:
    """How many would be dropped, how many kept, and how many could not be scored."""
    images = sorting.kept + sorting.dropped
    share = f" ({percent(sorting.dropped / images)})" if images else ""
    rest = f"; {count(sorting.quarantined, 'row')} could not be scored" if sorting.quarantined else ""
    return f"{sorting.dropped:,} of {count(images, 'image')}{share} would be dropped, {sorting.kept:,} kept{rest}"


def render(run: Run, rule: Rule, sorting: Sorting, pictures: Mapping[str, Sequence[Thumbnail]]) -> str:
    """The page; everything that came from data is escaped.

    Args:
        sorting: published, so that no credential is in it.
        pictures: one for each of ``sorting.examples``.
    """
    names = run.model["class_names"]
    sheets = [
        (title[0].upper() + title[1:] + f" {rule.score}", _cards(rows, pictures[title], names))
        for title, rows in sorting.examples.items()
    ]
    reasons = sorted(sorting.reasons.items(), key=lambda item: -item[1])
    return fill(
        __package__,
        "preview",
        rule=rule.text,
        score=rule.score,
        headline=[headline(sorting), *(f"{rows:,} {reason}" for reason, rows in reasons[:20])],
        sheets=sheets,
        data={},
        provenance=[("the run", flatten(run.info))],
    )


def _cards(rows: Sequence[dict[str, Any]], pictures: Sequence[Thumbnail], names: Any) -> list[dict[str, Any]]:
    return [
        {
            "row": row,
            "picture": picture,
            "prediction": class_name(row["prediction"], names),
            "file": file_name(row["source"]),
        }
        for row, picture in zip(rows, pictures, strict=True)
    ]
