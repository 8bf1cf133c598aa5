"""A report's numbers and page as a run of MLflow: ``pip install 'regrad[mlflow]'``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from regrad import storage
from regrad.errors import RegradError, UsageError

_FILES = ("report.json", "report.html")
_OF_LABELS = {"doubtful": "share", "accuracy_estimate": "accuracy"}


def log_report(folder: str, experiment: str) -> str:
    """Log the report in ``folder`` (a path or URI) to ``experiment``; the identifier of the MLflow run.

    Where to: ``MLFLOW_TRACKING_URI``. Parameters: model and settings; metrics: images, shares flagged, accuracy and
    calibration, and of each score what it separates and which errors it finds; artifacts: the page and its JSON.

    Raises:
        UsageError: MLflow is not installed, or there is no report.
        RegradError: the tracking server or the store refused or failed.
    """
    try:
        import mlflow
    except ImportError as error:
        raise UsageError("MLflow is not installed; pip install 'regrad[mlflow]'") from error
    try:
        texts = {name: storage.read_bytes(storage.join(folder, name)).decode() for name in _FILES}
    except FileNotFoundError as error:
        raise UsageError(f"{error}; give the --output of regrad report") from error
    report = json.loads(texts["report.json"])
    try:
        mlflow.set_experiment(experiment)
        with mlflow.start_run(run_name=report["id"]["name"]) as run:
            mlflow.log_params(parameters(report))
            mlflow.log_metrics(metrics(report))
            for name, text in texts.items():
                mlflow.log_text(text, name)
            identifier: str = run.info.run_id
            return identifier
    except Exception as error:  # whatever the tracking server's client raises
        raise RegradError(f"MLflow did not take the report: {storage.reason(error)}") from error


def parameters(report: Mapping[str, Any]) -> dict[str, str]:
    """Model and settings of the run in question, and the rule that flags."""
    run = report["runs"][report["id"]["name"]]
    model = {f"model.{name}": run["model"].get(name) for name in ("spec", "fingerprint", "classes")}
    rule = {f"threshold.{name}": value for name, value in report["threshold"].items()}
    logged = {"main_score": report["main_score"], **model, **rule, **run["config"]}
    return {_key(name): storage.mask(str(value)) for name, value in logged.items() if value not in (None, [], "")}


def metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a report under dotted names: ``regrad.ood.drawings.auroc``, ``flagged.id``, ``id.ece``."""
    parts = {
        "id": {name: report["id"].get(name) for name in ("images", "quarantined", "accuracy", "nll", "ece")},
        **{name: {key: (report[name] or {}).get(key)} for name, key in _OF_LABELS.items()},
        "flagged": {name: rates["share"] for name, rates in report["rates"].items()},
        **{name: {kind: score.get(kind) for kind in ("ood", "errors")} for name, score in report["scores"].items()},
    }
    return {_key(name): value for name, value in _leaves(parts, ()) if math.isfinite(value)}


def _leaves(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[str, float]]:
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from _leaves(value, (*path, name))
    elif isinstance(tree, int | float) and not isinstance(tree, bool):
        yield ".".join(path), float(tree)


def _key(name: str) -> str:
    """``name`` in the characters that MLflow allows."""
    return re.sub(r"[^\w\-. /]", "_", name, flags=re.ASCII)
