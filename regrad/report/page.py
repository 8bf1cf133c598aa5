"""The report as one HTML file that needs nothing else: styles, scripts, data and thumbnails are inside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from regrad.formatting import class_name, file_name
from regrad.labels.doubtful import named_pairs
from regrad.maps.chart import Chart, page_values
from regrad.pages.markup import fill, flatten, late_pictures, short
from regrad.pages.thumbnails import Thumbnail

SHEETS = {
    "uncertain": "Most uncertain",
    "errors": "Certain errors",
    "misses": "Misses",
    "doubtful": "Doubtful labels",
}

#: On how many measured pairs of sets the score that finds errors best was within a point of the one that tells unknown
#: images best: docs/tables/probes.md.
NEAR_BY_ERRORS = {"near": 2, "pairs": 18}


def render(
    report: dict[str, Any],
    thumbnails: Mapping[str, Sequence[Thumbnail]],
    chart: Chart | None = None,
    on_map: Mapping[str, Sequence[Thumbnail]] | None = None,
) -> str:
    """The page of ``report``; everything that came from data is escaped.

    Args:
        report: what :func:`regrad.storage.published` returned, so that no credential is in it.
        thumbnails: set name -> one thumbnail per row of ``report["pictures"]``, in order; empty for a page without.
        chart: the map, for a page that has one; ``on_map`` are the thumbnails of ``chart.wanted``.
    """
    scripts, drawn_map = page_values(chart, report["class_names"], on_map or {}, partial(_title, report))
    flagged, names = report["rates"][report["id"]["name"]], report["class_names"]
    cards = _cards(report, thumbnails)
    separations = {run["name"]: _ranking(report, run["name"]) for run in report["ood"]}
    return fill(
        __package__,
        "page",
        scripts,
        report=report,
        headline=report["headline"],
        data=_plot_data(report) | drawn_map,
        ordered=_main_first(report),
        separations=list(separations.items()),
        bound=max((numbers["auroc_error"] for rows in separations.values() for _, numbers, _ in rows), default=0),
        errors=_error_ranking(report),
        set_rows=[
            (_title(report, run["name"]), run["sets"], run.get("covered"))
            for run in (report["id"], *report["ood"])
            if run.get("sets")
        ],
        doubtful_pairs=named_pairs(report["doubtful"], names),
        **NEAR_BY_ERRORS,
        thumbnails=bool(thumbnails),
        cards=cards,
        late=late_pictures(thumbnails),
        views=_views(report, cards),
        classes=sorted({(card["class_key"], card["prediction"]) for card in cards}, key=lambda item: int(item[0])),
        sources=sorted({(card["source_key"], card["row"]["source"]) for card in cards}, key=lambda item: int(item[0])),
        flagged=flagged,
        class_rates=[entry | {"name": class_name(entry["class"], names)} for entry in flagged["classes"][:50]],
        source_rates=[entry | {"name": file_name(entry["source"])} for entry in flagged["sources"][:50]],
        title=partial(_title, report),
        provenance=[(_title(report, name), flatten(info)) for name, info in report["runs"].items()],
    )


def _title(report: dict[str, Any], run: str) -> str:
    """What the page calls a set: images that are not set against unknown ones need not be known ones."""
    return "this run" if run == report["id"]["name"] and not report["ood"] else run


def _main_first(report: dict[str, Any]) -> list[str]:
    main = report["main_score"]
    return [main, *(name for name in report["scores"] if name != main)]


def _ranking(report: dict[str, Any], run: str) -> list[tuple[str, dict[str, Any], bool]]:
    """Score, its numbers against ``run``, and whether it is the best, largest AUROC first."""
    rows = [(name, numbers["ood"][run]) for name, numbers in report["scores"].items()]
    rows.sort(key=lambda row: -row[1]["auroc"])
    return [(name, numbers, numbers["auroc"] == rows[0][1]["auroc"]) for name, numbers in rows]


def _error_ranking(report: dict[str, Any]) -> list[tuple[str, dict[str, Any], dict[str, Any] | None]]:
    """Score, its numbers at finding errors, and how far it is behind the best, largest AUROC first.

    Empty without labels; nothing is behind where there is one score alone, or no error.
    """
    behind = (report["best_at_errors"] or {"behind": {}})["behind"]
    rows = [
        (name, numbers["errors"], behind.get(name)) for name, numbers in report["scores"].items() if numbers["errors"]
    ]
    return sorted(rows, key=lambda row: -(row[1]["auroc"] or 0))


def _cards(report: dict[str, Any], thumbnails: Mapping[str, Sequence[Thumbnail]]) -> list[dict[str, Any]]:
    """What the page shows of each picture. Sets, classes and sources go by number, since names may be long."""
    names = report["class_names"]
    sources: dict[str, int] = {}
    cards = []
    for number, (run, rows) in enumerate(report["pictures"].items()):
        # The labels of an out-of-distribution set are not the model's classes, so they get no names.
        label_names = names if run == report["id"]["name"] else None
        for row, picture in zip(rows, thumbnails.get(run) or [Thumbnail(None)] * len(rows), strict=True):
            cards.append(
                {
                    "row": row,
                    "picture": picture,
                    "views": " ".join(f"{number}-{sheet}" for sheet in row["sheets"]),
                    "prediction": class_name(row["prediction"], names),
                    "class_key": str(-1 if row["prediction"] is None else row["prediction"]),
                    "source_key": str(sources.setdefault(row["source"], len(sources))),
                    "label": None if row["label"] is None else class_name(row["label"], label_names),
                    "file": file_name(row["source"]),
                }
            )
    return cards


def _views(report: dict[str, Any], cards: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The contact sheets that have a picture: their key in the cards, title and number of cards."""
    for number, run in enumerate(report["pictures"]):
        for sheet, title in SHEETS.items():
            key = f"{number}-{sheet}"
            if held := sum(key in card["views"].split() for card in cards):
                yield {"key": key, "title": f"{title}: {_title(report, run)}", "cards": held}


def _plot_data(report: dict[str, Any]) -> dict[str, Any]:
    """What the page's script draws from."""
    scores = []
    for name in _main_first(report):
        numbers = report["scores"][name]
        bins = numbers["histogram"]
        sets = [{"name": short(_title(report, run), 60), "shares": shares} for run, shares in bins["shares"].items()]
        scores.append(
            {
                "name": name,
                "histogram": bins | {"shares": sets},
                "ood": list(numbers["curves"]["ood"].values()),
                "errors": numbers["curves"]["errors"],
            }
        )
    sources = sorted(report["rates"][report["id"]["name"]]["sources"], key=lambda entry: entry["source"])
    return {
        "main": report["main_score"],
        "threshold": report["threshold"]["value"],
        "scores": scores,
        "reliability": report["reliability"],
        "sources": [
            {"name": short(file_name(entry["source"]), 60)}
            | {key: entry[key] for key in ("images", "flagged", "share")}
            for entry in sources
        ],
    }
