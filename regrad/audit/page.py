"""The audit as one HTML file that needs nothing else; the template and its script are beside those of the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from regrad.audit.gates import EXCEEDED, METRICS, SHARE
from regrad.audit.words import p_value
from regrad.formatting import DASH, class_name, file_name
from regrad.labels.doubtful import named_pairs
from regrad.maps.chart import Chart, page_values
from regrad.metrics.wilson import share_interval
from regrad.pages.markup import fill, flatten, format_number, short, two_decimals
from regrad.pages.thumbnails import TOO_LATE, Thumbnail

NIGHTS = 90  # shown in the trend
_SHOWN = 50
FIGURES = ("flagged_share", "quarantined", "psi", "ks", "prediction_psi")  # of a single night


def render(
    audit: dict[str, Any],
    nights: Sequence[dict[str, Any]],
    pictures: Sequence[Thumbnail] | None,
    chart: Chart | None = None,
    on_map: Mapping[str, Sequence[Thumbnail]] | None = None,
) -> str:
    """The page of ``audit``; everything that came from data is escaped.

    Args:
        audit: ``audit.json``, so that no credential is in it.
        nights: the rows of ``history.parquet`` in order, this night's among them.
        pictures: one thumbnail per row of ``audit["pictures"]``; None for a page without.
        chart: the map, for a page that has one; ``on_map`` are the thumbnails of ``chart.wanted``.
    """
    scripts, drawn_map = page_values(chart, audit["class_names"], on_map or {})
    rates = audit["rates"] or {"classes": [], "sources": [], "sources_total": 0}
    shown = nights[-NIGHTS:]
    trend = sum(night["flagged_share"] is not None for night in shown) > 1
    figures = [] if trend else list(_figures(audit))
    late = sum(picture.problem == TOO_LATE for picture in pictures or ())
    return fill(
        __package__,
        "page",
        scripts,
        audit=audit,
        headline=audit["headline"],
        failed=any(gate["verdict"] == "exceeded" for gate in audit["gates"]),
        gates=[gate | {"shown": _metric(gate["metric"], gate["value"])} for gate in audit["gates"]],
        metrics=[(name, _metric(name, audit["metrics"][name]), metric.about) for name, metric in METRICS.items()],
        doubtful_pairs=named_pairs(audit["doubtful"], audit["class_names"]),
        classes=list(_slices(rates["classes"][:_SHOWN], audit)),
        sources=list(_slices(rates["sources"][:_SHOWN], audit)),
        sources_total=rates["sources_total"],
        cards=list(_cards(audit, pictures)),
        thumbnails=pictures is not None,
        late=late,
        data=_plot_data(audit, shown) | {"figures": figures} | drawn_map,
        nights=shown,
        title=str,
        trend=trend,
        figures=figures,
        provenance=[("this night", flatten(audit["run"])), ("baseline", flatten(audit["baseline"]))],
    )


def _metric(name: str, value: Any) -> str:
    if METRICS[name].kind == SHARE and value is not None:
        return f"{two_decimals(value)} %"
    return format_number(value)


def _slices(entries: Sequence[dict[str, Any]], audit: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for entry in entries:
        key = "class" if "class" in entry else "source"
        name = class_name(entry["class"], audit["class_names"]) if key == "class" else file_name(entry["source"])
        p = entry["p_adjusted"]
        said = DASH if p is None else p_value(p).removeprefix("p = ").removeprefix("p ").replace(" ", "\u00a0")
        yield entry | {"name": name, "p_shown": said}


def _cards(audit: dict[str, Any], pictures: Sequence[Thumbnail] | None) -> Iterator[dict[str, Any]]:
    rows = audit["pictures"]
    for row, picture in zip(rows, pictures or [Thumbnail(None)] * len(rows), strict=True):
        yield {
            "row": row,
            "picture": picture,
            "prediction": class_name(row["prediction"], audit["class_names"]),
            "file": file_name(row["source"]),
        }


def _plot_data(audit: dict[str, Any], nights: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the page's script draws from."""
    predictions = audit["predictions"]
    return {
        "score": audit["score"],
        "threshold": audit["threshold"]["value"],
        "baseline_share": audit["baseline"]["flagged_share"],
        "nights": [_point(night) for night in nights],
        "bounds": {gate["metric"]: gate["bound"] for gate in audit["gates"]},
        "histogram": audit["histogram"],
        "predictions": predictions
        and {
            "names": [short(class_name(place, audit["class_names"]), 30) for place in range(len(predictions["night"]))],
            **{key: _shares(counts) for key, counts in predictions.items()},
        },
    }


def _figures(audit: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a night is held against baseline and gates by, where it has a value: until there is a trend."""
    gates = {gate["metric"]: gate for gate in audit["gates"]}
    baselines = {"flagged_share": audit["baseline"]["flagged_share"]}
    for name in dict.fromkeys([*FIGURES, *gates]):
        value, gate, baseline = audit["metrics"][name], gates.get(name), baselines.get(name)
        if value is None:
            continue
        beside = [] if baseline is None else [f"baseline {_metric(name, baseline)}"]
        beside += [f"gate {gate['operator']} {_metric(name, gate['bound'])}"] if gate else []
        yield {
            "name": name,
            "value": value,
            "baseline": baseline,
            "bound": gate and gate["bound"],
            "exceeded": gate is not None and gate["verdict"] == EXCEEDED,
            "said": f"{_metric(name, value)} ({', '.join(beside)})" if beside else _metric(name, value),
        }


def _point(night: dict[str, Any]) -> dict[str, Any]:
    names = ("night", "images", "flagged_share", "quarantined", "psi", "ks", "prediction_psi")
    interval = share_interval(night["flagged"], night["images"]) if night["images"] else None
    return {name: night[name] for name in names} | {"interval": interval, "failed": bool(night["failed_gates"])}


def _shares(counts: Sequence[int]) -> list[float]:
    return [number / max(sum(counts), 1) for number in counts]
