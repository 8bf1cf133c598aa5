"""The numbers of a report, as the dictionary that becomes ``report.json``; docs/report.md has its schema."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from regrad.labels.doubtful import SHEET, Doubts
from regrad.labels.estimate import estimate_accuracy
from regrad.metrics import bootstrap, counted
from regrad.report import best, headline
from regrad.runs import curves
from regrad.runs.rule import DEFAULT
from regrad.runs.scored import Floats, Ints, Run, common_scores
from regrad.runs.sift import Flags, pick_images, sift
from regrad.runs.survey import Survey, align, p_values
from regrad.runs.threshold import Threshold, choose_threshold

REPORT_VERSION = 3


def summarise(
    known: Run,
    unknown: Sequence[Run],
    output: str,
    reference: Run | None = None,
    threshold: float | str = DEFAULT,
    top: int = 48,
) -> tuple[dict[str, Any], Threshold]:
    """The whole report of one run, against any number of out-of-distribution runs; writes ``OUT/flags/`` and, where
    there are labels, ``OUT/doubtful.csv`` and ``.parquet``.

    Args:
        known: the run the report is about; the only one whose labels are judged.
        unknown: the out-of-distribution runs, each under a name of its own.
        output: where the flagged and the doubtful rows go.
        reference: the run a quantile is taken of; None for ``known`` itself.
        threshold: see :func:`regrad.runs.rule.parse_rule`.
        top: how many pictures of each of ``known`` and ``unknown`` to list.

    Raises:
        UsageError: the runs do not compare, one has no rows, or the threshold does not fit.
        RegradError: the storage refused or failed.
    """
    others = [*unknown, *([reference] if reference else [])]
    names, main = common_scores(known, others)
    surveys = {run.name: Survey(run, names, sampled=run is known) for run in (known, *others)}
    chosen = choose_threshold(threshold, names, main, surveys[(reference or known).name])
    main = chosen.score
    unlike = p_values(surveys[(reference or known).name], main)
    doubts = Doubts(known, [surveys[run.name] for run in (known, reference) if run])
    watchers = {known.name: doubts} if surveys[known.name].labelled else {}
    with Flags(output) as flags:
        sifted = {
            run.name: sift(run, chosen, top, run is known, flags.add, unlike, watchers.get(run.name))
            for run in (known, *unknown)
        }
    doubts.write(output)
    sheets = {name: of_run.sheets for name, of_run in sifted.items()}
    sheets[known.name] |= {SHEET: doubts.rows(top)} if doubts.share else {}
    scores = {name: _score(name, [surveys[run.name] for run in (known, *others)], len(unknown)) for name in names}
    report = {
        "report_version": REPORT_VERSION,
        "main_score": main,
        "id": _describe(surveys[known.name]) | _labels(surveys[known.name]),
        "ood": [_describe(surveys[run.name]) for run in unknown],
        "reference": _describe(surveys[reference.name]) if reference else None,
        "threshold": {"value": chosen.value, "quantile": chosen.quantile, "reference": chosen.reference},
        "bootstrap": bootstrap.SETTINGS,
        "scores": scores,
        "best_at_errors": _best_at_errors(scores, surveys[known.name]),
        "reliability": surveys[known.name].confidence.diagram(),
        "doubtful": doubts.numbers(),
        "accuracy_estimate": estimate_accuracy(surveys[reference.name], surveys[known.name]) if reference else None,
        "rates": {name: of_run.rates for name, of_run in sifted.items()},
        "map": None,
        "pictures": {name: pick_images(own, top) for name, own in sheets.items()},
        "class_names": known.model["class_names"],
        "runs": {run.name: run.info for run in (known, *others)},
    }
    return {"headline": headline.sentences(report)} | report, chosen


def _describe(survey: Survey) -> dict[str, Any]:
    info = survey.run.info
    return {
        "name": survey.run.name,
        "uri": survey.run.output,
        "images": survey.images,
        "quarantined": info.get("counts", {}).get("rows_quarantined", 0),
        "status": info.get("status"),
        "finished": info.get("finished"),
        "sets": survey.of_sets()["sets"],
    }


def _labels(survey: Survey) -> dict[str, Any]:
    return {
        "classes": survey.run.model["classes"],
        "labelled": survey.labelled,
        "labels_outside": survey.labels_outside,
        "temperature": survey.run.model.get("temperature"),
        **survey.numbers(),
        "intervals": survey.intervals(),
        "covered": survey.of_sets()["covered"],
    }


def _score(name: str, surveys: Sequence[Survey], unknown: int) -> dict[str, Any]:
    """One score, of the known run first, then of ``unknown`` unknown ones, then of the reference if there is one."""
    values, counts, exact = align(surveys, name)
    sets = [survey.run.name for survey in surveys]
    right, wrong = surveys[0].errors(name)[1:]
    pairs = dict(zip(sets[1 : 1 + unknown], counts[1 : 1 + unknown], strict=True))
    return {
        "left_out": sum(survey.left_out[name] for survey in surveys),
        "ood": {set_name: _separation(values, counts[0], ood, exact) for set_name, ood in pairs.items()},
        "errors": _errors(right, wrong) if right.size else None,
        "histogram": curves.histogram(values, dict(zip(sets, counts, strict=True))),
        "curves": {
            "ood": {set_name: curves.separation_curves(counts[0], ood) for set_name, ood in pairs.items()},
            "errors": curves.selective_curves(right, wrong) if right.size else None,
        },
    }


def _separation(values: Floats, known: Ints, unknown: Ints, exact: bool) -> dict[str, Any]:
    def metrics(id_counts: Ints, ood_counts: Ints, spread: bool = False) -> dict[str, Floats]:
        return {
            "auroc": counted.auroc(id_counts, ood_counts),
            "aupr_ood": counted.aupr(id_counts, ood_counts, positive="ood"),
            "aupr_id": counted.aupr(id_counts, ood_counts, positive="id"),
            "fpr95": counted.fpr_at_tpr(id_counts, ood_counts, spread=spread),
        }

    few = bootstrap.pool([known, unknown])
    merged = few[0].size < known.size
    return {
        **{name: float(value) for name, value in metrics(known, unknown).items()},
        "auroc_error": 0.0 if exact else counted.auroc_error(known, unknown),
        # Flagged is what lies above a threshold, so the cell itself must.
        "threshold95": math.nextafter(values[counted.cell_at_tpr(unknown)], -math.inf),
        "intervals": bootstrap.intervals(lambda ours, theirs: metrics(ours, theirs, spread=merged), few),
    }


def _errors(right: Ints, wrong: Ints) -> dict[str, Any]:
    def metrics(drawn: Ints) -> dict[str, Floats]:
        hits, errors = drawn[..., 0, :], drawn[..., 1, :]
        return {
            "auroc": counted.auroc(hits, errors),
            "raulc": counted.raulc(hits, errors),
            "aurc": counted.aurc(hits, errors),
            "augrc": counted.augrc(hits, errors),
        }

    return {
        **{name: _plain(float(value)) for name, value in metrics(np.stack([right, wrong])).items()},
        "intervals": bootstrap.intervals(metrics, [np.stack(bootstrap.pool([right, wrong]))]),
    }


def _best_at_errors(scores: dict[str, Any], survey: Survey) -> dict[str, Any] | None:
    aurocs = {name: own["errors"]["auroc"] if own["errors"] else None for name, own in scores.items()}
    return best.at_errors(aurocs, survey.sample)


def _plain(value: float) -> float | None:
    """``value`` as JSON can hold it."""
    return value if math.isfinite(value) else None
