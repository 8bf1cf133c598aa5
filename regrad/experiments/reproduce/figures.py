"""The plots beside the tables, as SVG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from regrad.errors import UsageError
from regrad.experiments.material.tasks import TASKS
from regrad.experiments.measured import labelling
from regrad.experiments.measured.results import Result

_COLUMNS = 2
SHOWN = ("REGrad*", "ExGrad", "Entropy", labelling.RANDOM, *labelling.DIVERSE)


def draw(table: str, results: Sequence[Result]) -> bytes | None:
    """The plot of a table as SVG, from its results; None for a table without one, or without numbers."""
    try:
        import matplotlib
    except ImportError as error:
        raise UsageError("plots need matplotlib: pip install 'regrad[benchmark]'") from error
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "regrad", "font.size": 8, "axes.spines.top": False})
    matplotlib.rcParams["axes.spines.right"] = False
    if table == "ood":
        return _ahead(results)
    if table in TASKS:
        return _curves(results)
    return None


def _ahead(results: Sequence[Result]) -> bytes | None:
    """REGrad* minus entropy and minus ExGrad on every experiment, with intervals."""
    import matplotlib.pyplot as plt

    wanted = ("REGrad* − Entropy", "REGrad* − ExGrad")
    rows = [result for result in results if result.row in wanted and result.mean is not None]
    if not rows:
        return None
    names = list(dict.fromkeys((result.group, result.experiment) for result in rows))
    figure, axis = plt.subplots(figsize=(6.4, 1.0 + 0.34 * len(names)))
    for number, (row, colour) in enumerate(zip(wanted, ("#1f5fa8", "#c8651b"), strict=True)):
        own = [result for result in rows if result.row == row]
        places = [names.index((r.group, r.experiment)) + 0.22 * (number - 0.5) for r in own]
        low, mean, high = np.asarray([[float(v or 0) for v in (r.low, r.mean, r.high)] for r in own]).T
        ends = np.stack([mean - low, high - mean]).clip(0)
        axis.errorbar(mean, places, xerr=ends, fmt="o", markersize=3.5, color=colour, label=row, capsize=2)
    axis.axvline(0, color="#666666", linewidth=0.8)
    axis.set_yticks(range(len(names)), [f"{experiment}  ({group})" for group, experiment in names])
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlabel("AUROC points, 95 % interval over images")
    axis.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2)
    return _svg(figure)


def _curves(results: Sequence[Result]) -> bytes | None:
    """Accuracy per cycle, mean over seeds, of some methods."""
    import matplotlib.pyplot as plt

    drawn = {
        title: {row: points for row in SHOWN for points in [labelling.curve(results, title, row)] if points[0]}
        for title in dict.fromkeys(result.experiment for result in results)
    }
    drawn = {title: curves for title, curves in drawn.items() if curves}
    if not drawn:
        return None
    lines = -(-len(drawn) // _COLUMNS)
    figure, axes = plt.subplots(lines, _COLUMNS, figsize=(3.6 * _COLUMNS, 2.6 * lines), squeeze=False)
    for axis in axes.flat[len(drawn) :]:
        axis.remove()
    for axis, (title, curves) in zip(axes.flat, drawn.items(), strict=False):
        for row, (labels, accuracies) in curves.items():
            colour = f"C{SHOWN.index(row)}"
            axis.plot(labels, accuracies, colour, marker="o", markersize=2.5, label=row)
        axis.set(title=title, xlabel="labels", ylabel="accuracy in percent")
    lines_of = {line.get_label(): line for axis in figure.axes for line in axis.lines}
    known = [row for row in SHOWN if row in lines_of]
    handles = [lines_of[row] for row in known]
    figure.legend(handles, known, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(known))
    return _svg(figure)


def _svg(figure: Any) -> bytes:
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.tight_layout()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return buffer.getvalue()
