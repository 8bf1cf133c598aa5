"""The report as one HTML file that needs nothing else: styles, figures and thumbnails are inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from regrad.report import figures
from regrad.report.headline import count
from regrad.report.thumbnails import Thumbnail

FOLDER = resources.files("regrad.report")
DASH = "–"


def render(report: dict[str, Any], sheets: Mapping[str, Sequence[Thumbnail]]) -> str:
    """The page of ``report``; everything that came from data is escaped.

    Args:
        report: what :func:`regrad.report.numbers.published` returned, so that no credential is in it.
        sheets: set name -> one thumbnail per row of ``report["most_uncertain"]``, in order; a set without
            thumbnails is listed with placeholders.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {
        "percent": two_decimals,
        "number": _number,
        "counted": count,
        "unbroken": _unbroken,
        "breakable": _breakable,
    }
    template = environment.from_string(FOLDER.joinpath("page.html").read_text("utf-8"))
    return template.render(
        report=report,
        style=Markup(FOLDER.joinpath("page.css").read_text("utf-8")),  # our own file: nothing in it to escape
        separations=[(run, _ranking(report, run["name"])) for run in report["ood"]],
        charts=[(name, _charts(report, name)) for name in [run["name"] for run in report["ood"]] or [""]],
        sheets=[_sheet(report, run, sheets.get(run["name"], ())) for run in (report["id"], *report["ood"])],
        provenance=[(name, flatten(info)) for name, info in report["runs"].items()],
    )


def two_decimals(share: float | None) -> str:
    """A share in percent as tables of the literature print it.

    >>> two_decimals(0.98079), two_decimals(None)
    ('98.08', '–')
    """
    return DASH if share is None else f"{100 * share:.2f}"


def flatten(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested dictionaries as dotted keys and printable values, in order.

    >>> flatten({"model": {"classes": 10}, "scores": ["regrad", "entropy"], "none": {}})
    [('model.classes', '10'), ('scores', 'regrad, entropy'), ('none', '–')]
    """
    if isinstance(value, dict) and value:
        return [
            pair for key, item in value.items() for pair in flatten(item, f"{prefix}.{key}" if prefix else str(key))
        ]
    if isinstance(value, list) and not any(isinstance(item, (dict, list)) for item in value):
        return [(prefix, ", ".join(map(str, value)) or DASH)]
    return [(prefix, DASH if value in (None, {}, "") else str(value))]


def class_name(index: int | None, names: Sequence[str] | None) -> str:
    """The name of class ``index``, or its number where names are not known or do not reach that far.

    >>> class_name(1, ["cat", "dog"]), class_name(7, ["cat", "dog"]), class_name(None, None)
    ('dog', '7', '–')
    """
    if index is None or index < 0:
        return DASH
    return names[index] if names and index < len(names) else str(index)


def _number(value: float | None) -> str:
    return DASH if value is None else figures.format_number(value)


def _unbroken(sentence: str) -> str:
    """No line break between a number and its sign."""
    return sentence.replace(" %", "\u00a0%").replace("≥ ", "≥\u00a0")


def _breakable(name: str) -> Markup:
    """A score's name, which may be broken after an underscore: names are long and phones narrow."""
    return Markup("_<wbr>").join(name.split("_"))


def _main_first(report: dict[str, Any]) -> list[str]:
    main = report["main_score"]
    return [main, *(name for name in report["scores"] if name != main)]


def _ranking(report: dict[str, Any], run: str) -> list[tuple[str, dict[str, float], bool]]:
    """Score, its numbers against ``run``, and whether it is the best, largest AUROC first."""
    rows = [(name, numbers["ood"][run]) for name, numbers in report["scores"].items()]
    rows.sort(key=lambda row: -row[1]["auroc"])
    return [(name, numbers, numbers["auroc"] == rows[0][1]["auroc"]) for name, numbers in rows]


def _charts(report: dict[str, Any], run: str) -> list[tuple[str, figures.Histogram]]:
    """A figure per score, known images against ``run``; alone where ``run`` is empty."""
    made = []
    for name in _main_first(report):
        bins = report["scores"][name]["histogram"]
        unknown = bins["ood"][run] if run else [0.0] * len(bins["id"])
        made.append((name, figures.histogram(bins["edges"], bins["id"], unknown, bins["log"])))
    return made


def _sheet(report: dict[str, Any], run: dict[str, Any], thumbnails: Sequence[Thumbnail]) -> dict[str, Any]:
    rows = report["most_uncertain"][run["name"]]
    pictures = list(thumbnails) or [Thumbnail(None, problem="no thumbnail was made")] * len(rows)
    names = report["class_names"]
    # The labels of an out-of-distribution set are not the model's classes, so they get no names.
    label_names = names if run is report["id"] else None
    cards = [
        {
            "row": row,
            "picture": picture,
            "prediction": class_name(row["prediction"], names),
            "label": class_name(row["label"], label_names),
            "file": row["source"].rstrip("/").rsplit("/", 1)[-1],
        }
        for row, picture in zip(rows, pictures, strict=True)
    ]
    return {"run": run, "cards": cards}
