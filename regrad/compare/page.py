"""The comparison of two runs as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from regrad.formatting import DASH, class_name, file_name
from regrad.pages.markup import fill, flatten, format_number, late_pictures, two_decimals
from regrad.pages.thumbnails import Thumbnail
from regrad.runs.pairs import SIDES

MOVED = {"risen": "More uncertain in B", "fallen": "Less uncertain in B"}
ERRORS = {"auroc": "AUROC of errors", "raulc": "rAULC", "aurc": "AURC"}

Show = Callable[[Any], str]


def render(report: dict[str, Any], thumbnails: Mapping[str, Sequence[Thumbnail]]) -> str:
    """The page of ``report``; everything that came from data is escaped.

    Args:
        report: a comparison that :func:`regrad.storage.published` returned, so that no credential is in it.
        thumbnails: ``risen`` and ``fallen`` -> one thumbnail per row of ``report["moved"]``; empty for a page without.
    """
    main = report["main_score"]
    ordered = [main, *(name for name in report["scores"] if name != main)]
    labels = [("The classifier", list(_labels(report["labels"])))] if report["labels"] else []
    return fill(
        __package__,
        "page",
        report=report,
        headline=report["headline"],
        facts=list(_facts(report)),
        tables=[*((name, list(_score(report, name))) for name in ordered), *labels],
        ordered=ordered,
        data={"scores": [_plane(name, report["scores"][name]) for name in ordered]},
        sheets=[(title, list(_cards(report, key, thumbnails.get(key)))) for key, title in MOVED.items()],
        thumbnails=bool(thumbnails),
        late=late_pictures(thumbnails),
        provenance=[(side.upper(), flatten(report["runs"][side])) for side in SIDES],
    )


def signed(value: float | None) -> str:
    """A difference with its sign, three significant digits.

    >>> signed(0.01234), signed(-2.0), signed(0.0), signed(None)
    ('+0.0123', '-2', '0', '–')
    """
    return DASH if value is None else "0" if value == 0 else f"{value:+.3g}"


def points(value: float | None) -> str:
    """A difference of shares in percentage points.

    >>> points(0.01234), points(-0.00001), points(None)
    ('+1.23', '-0.001', '–')
    """
    return DASH if value is None else signed(100 * value)


def _facts(report: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What tells the runs apart: where they are, when they were made, and the settings that differ."""
    a, b = (report[side] for side in SIDES)
    yield "run", a["uri"], b["uri"]
    yield "finished", str(a["finished"] or DASH), str(b["finished"] or DASH)
    for name, other in report["ood"].items():
        yield f"images of {name}", other["a"]["uri"], other["b"]["uri"]
    for entry in report["settings"]:
        yield entry["setting"], flatten(entry["a"])[0][1], flatten(entry["b"])[0][1]


def _score(report: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """The rows of the table of one score."""
    numbers = report["scores"][name]
    correlation = numbers["rank_correlation"]
    yield _alone("rank correlation", correlation["value"], correlation["interval"], format_number)
    for key in ("mean", "median"):
        yield _row(f"{key} difference", **_single(numbers["difference"][key]), show=format_number, differ=signed)
    if numbers["flagged"]:
        yield _row("flagged", **_numbers(numbers["flagged"]), show=two_decimals, differ=points)
        both = numbers["flagged"]["both"]
        yield _alone("flagged by both", both["value"], both["interval"], two_decimals)
    for other, separation in report["ood"].items():
        yield _row(f"AUROC against {other}", **_numbers(separation["scores"][name]), show=two_decimals, differ=points)
    for key, title in ERRORS.items() if numbers["errors"] else ():
        yield _row(title, **_numbers(numbers["errors"][key]), show=two_decimals, differ=points)


def _labels(labels: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield _row("accuracy", **_numbers(labels["accuracy"]), show=two_decimals, differ=points)
    yield _row("calibration error (ECE)", **_numbers(labels["ece"]), show=two_decimals, differ=points)
    yield _row("NLL, nats", **_numbers(labels["nll"]), show=format_number, differ=signed)


def _numbers(metric: dict[str, Any]) -> dict[str, Any]:
    return {key: metric[key] for key in ("a", "b", "difference", "interval")}


def _single(metric: dict[str, Any]) -> dict[str, Any]:
    return {"a": None, "b": None, "difference": metric["value"], "interval": metric["interval"]}


def _row(name: str, a: Any, b: Any, difference: Any, interval: Any, show: Show, differ: Show) -> dict[str, Any]:
    return {
        "name": name,
        "alone": a is None and b is None,
        "a": show(a),
        "b": show(b),
        "difference": differ(difference),
        "interval": interval and f"{differ(interval[0])} to {differ(interval[1])}",
        "sure": bool(interval) and (interval[0] > 0 or interval[1] < 0),
    }


def _alone(name: str, value: Any, interval: Any, show: Show) -> dict[str, Any]:
    """A row of a value that is of both runs at once."""
    return _row(name, None, None, value, interval, show, show) | {"sure": False}


def _plane(name: str, numbers: dict[str, Any]) -> dict[str, Any]:
    """What the page's script draws of a score."""
    flagged = numbers["flagged"]
    thresholds = flagged and [flagged["threshold_a"], flagged["threshold_b"]]
    return {"name": name, "plane": numbers["plane"], "thresholds": thresholds}


def _cards(report: dict[str, Any], key: str, thumbnails: Sequence[Thumbnail] | None) -> Iterator[dict[str, Any]]:
    """What the page shows of each image that moved."""
    rows = report["moved"][key]
    for row, picture in zip(rows, thumbnails or [Thumbnail(None)] * len(rows), strict=True):
        names = [class_name(row[f"{side}.prediction"], report["class_names"][side]) for side in SIDES]
        yield {
            "row": row,
            "picture": picture,
            "rank_a": f"{100 * row['a.rank']:.0f}",
            "rank_b": f"{100 * row['b.rank']:.0f}",
            "prediction": names[0] if names[0] == names[1] else " → ".join(names),
            "label": None if row["label"] is None else class_name(row["label"], report["class_names"]["a"]),
            "file": file_name(row["source"]),
        }
