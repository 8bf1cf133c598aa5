"""The numbers of a report, as the dictionary that becomes ``report.json``.

    report_version   1
    main_score       the score the headline and the contact sheets go by
    headline         sentences in plain words
    id               name, uri, images, quarantined, status, classes, labelled, labels_outside, accuracy
    ood              a list of: name, uri, images, quarantined, status
    scores           score name -> raulc, left_out, histogram,
                     ood: set name -> auroc, aupr_ood, aupr_id, fpr95, threshold95
    most_uncertain   set name -> rows with id, source, row, label, prediction, confidence, score, correct
    class_names      the classes' names, or null
    runs             set name -> its run.json

Metrics are fractions as defined in :mod:`regrad.metrics`; null means undefined. A NaN score is left out and counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from regrad import metrics, storage, table
from regrad.errors import RegradError, UsageError
from regrad.report import headline

REPORT_VERSION = 1
PREFERRED_SCORE = "regrad"
ID_NAME = "in-distribution"
NO_LABEL = -(2**31) - 1  # below every int32, so no label that a table can hold is taken for a missing one
BINS = 48
SCORE_SETTINGS = ("sigma", "samples", "depth_decay", "engine", "tolerance", "noise_space", "layers")
SHEET_COLUMNS = ("id", "source", "row", "label", "prediction", "confidence")

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """What the report needs of one scoring run; the arrays have one entry per scored image, in table order."""

    name: str
    output: str
    info: dict[str, Any]
    scores: dict[str, Floats]
    labels: Ints
    predictions: Ints

    @property
    def images(self) -> int:
        """How many images were scored."""
        return self.predictions.size


def load(name: str, output: str) -> Run:
    """The run that jobs/score.py wrote to ``output``, under the ``name`` the report is to use.

    Raises:
        UsageError: ``output`` holds no run, no rows, or no score.
        RegradError: the storage refused or failed.
    """
    info = table.read_run(output)
    if _model(info)["classes"] is None:
        raise RegradError(f"{storage.mask(output)}/run.json: does not say how many classes the model has")
    fixed = [column for column, _ in table.FIXED_COLUMNS]
    try:
        parts = table.dataset(output)
        names = [] if parts is None else [column for column in parts.schema.names if column not in fixed]
        rows = table.read(output, ["label", "prediction", *names])
    except (pa.ArrowException, OSError) as error:
        raise RegradError(f"{storage.mask(output)}/scores: cannot read: {storage.reason(error)}") from error
    if not names:
        raise UsageError(f"{storage.mask(output)}: the run has no score column; score it again with --scores")
    if not rows.num_rows:
        raise UsageError(f"{storage.mask(output)}: the run scored no image; see {storage.mask(output)}/quarantine")
    return Run(
        name=name,
        output=output,
        info=info,
        scores={column: pc.fill_null(rows[column], math.nan).to_numpy() for column in names},
        labels=_integers(rows["label"]),
        predictions=_integers(rows["prediction"]),
    )


def summarise(known: Run, unknown: Sequence[Run], top: int = 48) -> dict[str, Any]:
    """The whole report of an in-distribution run against any number of out-of-distribution runs.

    Args:
        known: the in-distribution run; the only one whose labels are judged.
        unknown: the out-of-distribution runs, each under a name of its own.
        top: how many of each run's most uncertain images to list.

    Raises:
        UsageError: two runs share a name, come from different models, or have no score in common.
        RegradError: the storage refused or failed.
    """
    refuse_incomparable(known, unknown)
    runs = [known, *unknown]
    names = [name for name in known.scores if all(name in run.scores for run in unknown)]
    main = PREFERRED_SCORE if PREFERRED_SCORE in names else names[0]
    report = {
        "report_version": REPORT_VERSION,
        "main_score": main,
        "id": _describe(known) | _labels(known),
        "ood": [_describe(run) for run in unknown],
        "scores": {name: _score(name, known, unknown) for name in names},
        "most_uncertain": {run.name: most_uncertain(run, main, top, judge=run is known) for run in runs},
        "class_names": _model(known.info)["class_names"],
        "runs": {run.name: run.info for run in runs},
    }
    return {"headline": headline.sentences(report)} | report


def published(value: Any) -> Any:
    """``value`` fit to leave the house: credentials in URIs masked, and every number one that JSON knows."""
    if isinstance(value, dict):
        return {published(key): published(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [published(item) for item in value]
    if isinstance(value, str):
        return storage.mask(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def refuse_incomparable(known: Run, unknown: Sequence[Run]) -> None:
    """Raise UsageError, with what to do, where scores of these runs must not be put side by side."""
    names = [run.name for run in (known, *unknown)]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two runs are called {name!r}: give each --ood set a name of its own")
    for run in unknown:
        ours, theirs = _settings(known.info), _settings(run.info)
        for setting, value in ours.items():
            if theirs[setting] != value:
                raise UsageError(
                    f"{storage.mask(run.output)}: scored with {setting} {theirs[setting]}, the in-distribution run "
                    f"{storage.mask(known.output)} with {value}; score both alike"
                )
        if not known.scores.keys() & run.scores.keys():
            raise UsageError(
                f"{storage.mask(run.output)}: has the scores {', '.join(run.scores)}, the in-distribution run "
                f"{', '.join(known.scores)}; score both with a common one"
            )


def _settings(info: dict[str, Any]) -> dict[str, Any]:
    """What runs must share for their scores to mean the same: the network and how it was scored.

    The preprocessing may rightly differ: drawings of black on white, say, are inverted for a model of white on black.
    """
    config = info.get("config", {})
    return {"network": _model(info)["network"][:12]} | {name: config.get(name) for name in SCORE_SETTINGS}


def _model(info: dict[str, Any]) -> dict[str, Any]:
    return {"spec": None, "network": "", "classes": None, "class_names": None} | info.get("model", {})


def most_uncertain(run: Run, score: str, top: int, judge: bool) -> list[dict[str, Any]]:
    """The ``top`` rows of ``run`` with the largest ``score``, largest first, ties in table order.

    ``correct`` says whether the prediction is the label; null where the label is missing or no class of the
    model, and in every row unless ``judge``.
    """
    values, judged = run.scores[score], _judged(run)
    ranked = np.flatnonzero(~np.isnan(values))
    ranked = ranked[np.argsort(-values[ranked], kind="stable")][:top]
    parts = table.dataset(run.output)
    if parts is None or not ranked.size:
        return []
    positions = np.sort(ranked)
    rows = parts.take(pa.array(positions), columns=list(SHEET_COLUMNS)).to_pylist()
    by_position = dict(zip(positions.tolist(), rows, strict=True))
    return [
        by_position[place]
        | {
            "score": _plain(values[place]),
            "correct": bool(run.labels[place] == run.predictions[place]) if judge and judged[place] else None,
        }
        for place in ranked.tolist()
    ]


def histogram(known: Floats, unknown: dict[str, Floats], bins: int = BINS) -> dict[str, Any]:
    """Shares of each set per bin, over bins common to all sets.

    The axis is logarithmic where the middle 99 % of the pooled values are positive and span a factor of 50 or
    more. The outermost bins also hold what lies beyond them, so a few extreme images cannot flatten the picture.

    Returns:
        ``log``, ``edges`` (bins + 1), ``id`` (bins) and ``ood``: name -> (bins).
    """
    pooled = np.concatenate([known, *unknown.values()])
    finite = pooled[np.isfinite(pooled)]
    low, high = (float(edge) for edge in np.quantile(finite, [0.005, 0.995])) if finite.size else (0.0, 0.0)
    log = low > 0 and high / low >= 50
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.geomspace(low, high, bins + 1) if log else np.linspace(low, high, bins + 1)

    def shares(values: Floats) -> list[float]:
        counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
        return [float(share) for share in counts / values.size]

    return {
        "log": log,
        "edges": edges.tolist(),
        "id": shares(known),
        "ood": {name: shares(values) for name, values in unknown.items()},
    }


def _describe(run: Run) -> dict[str, Any]:
    return {
        "name": run.name,
        "uri": run.output,
        "images": run.images,
        "quarantined": run.info.get("counts", {}).get("rows_quarantined", 0),
        "status": run.info.get("status"),
    }


def _judged(run: Run) -> npt.NDArray[np.bool_]:
    """Which images have a label that the model could have predicted."""
    classes = _model(run.info)["classes"]
    judged: npt.NDArray[np.bool_] = (run.labels >= 0) & (run.labels < classes)
    return judged


def _labels(run: Run) -> dict[str, Any]:
    judged = _judged(run)
    outside = int(((run.labels != NO_LABEL) & ~judged).sum())
    return {
        "classes": _model(run.info)["classes"],
        "labelled": int(judged.sum()),
        "labels_outside": outside,
        "accuracy": metrics.accuracy(run.labels[judged], run.predictions[judged]) if judged.any() else None,
    }


def _score(name: str, known: Run, unknown: Sequence[Run]) -> dict[str, Any]:
    finite = {run.name: run.scores[name][~np.isnan(run.scores[name])] for run in (known, *unknown)}
    for run in (known, *unknown):
        if not finite[run.name].size:
            raise RegradError(f"{storage.mask(run.output)}: every value of {name} is NaN; check the model's outputs")
    id_scores = finite.pop(known.name)
    return {
        "raulc": _raulc(known, name),
        "left_out": sum(run.images for run in (known, *unknown)) - id_scores.size - sum(map(len, finite.values())),
        "histogram": histogram(id_scores, finite),
        "ood": {set_name: _separation(id_scores, ood_scores) for set_name, ood_scores in finite.items()},
    }


def _separation(id_scores: Floats, ood_scores: Floats) -> dict[str, float]:
    return {
        "auroc": metrics.auroc(id_scores, ood_scores),
        "aupr_ood": metrics.aupr(id_scores, ood_scores, positive="ood"),
        "aupr_id": metrics.aupr(id_scores, ood_scores, positive="id"),
        "fpr95": metrics.fpr_at_tpr(id_scores, ood_scores),
        "threshold95": metrics.threshold_at_tpr(ood_scores),
    }


def _raulc(run: Run, name: str) -> float | None:
    judged = _judged(run) & ~np.isnan(run.scores[name])
    if not judged.any():
        return None
    return _plain(metrics.raulc(run.scores[name][judged], run.labels[judged] == run.predictions[judged]))


def _plain(value: float) -> float | None:
    """``value`` as JSON can hold it."""
    return float(value) if math.isfinite(value) else None


def _integers(column: pa.ChunkedArray) -> Ints:
    integers: Ints = pc.fill_null(column.cast(pa.int64()), NO_LABEL).to_numpy()
    return integers
