"""Two runs side by side, image by image: the dictionary that becomes ``compare.json``, explained in docs/report.md."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from regrad import storage
from regrad.compare import resampled, words
from regrad.compare.movement import Movement, Ranks, boolean, read_ranks
from regrad.compare.resampled import PairSample, side_by_side
from regrad.errors import RegradError, UsageError
from regrad.metrics import bootstrap
from regrad.runs import scored, threshold
from regrad.runs.pairs import SIDES, Pairs, column
from regrad.runs.scored import PREFERRED_SCORE, Run, common_scores, floats
from regrad.runs.survey import Confidence, Losses

COMPARE_VERSION = 1
NAMES = ("A", "B")
#: The parts of ``run.json`` that say how a run was made.
SETTINGS = ("regrad_version", "model", "config", "plan", "versions")
UNIMPORTANT = ("plan.why",)

Bounds = tuple[float, float]


def load_pairs(outputs: Sequence[str], ood: Sequence[tuple[str, str]]) -> tuple[Run, Run, list[tuple[Run, Run]]]:
    """The two runs, and both runs of each out-of-distribution set, given as ``(NAME, "URI_A,URI_B")``.

    Raises:
        UsageError: a set does not name two runs, or a run cannot be read; see :func:`regrad.runs.scored.load_run`.
        RegradError: the storage refused or failed.
    """
    pairs = []
    for name, text in ood:
        both_outputs = text.split(",")
        if len(both_outputs) != 2 or not all(both_outputs):
            raise UsageError(
                f"--ood {name}={storage.mask(text)}: a comparison needs {name}=URI_A,URI_B, one of each run"
            )
        pairs.append((scored.load_run(name, both_outputs[0]), scored.load_run(name, both_outputs[1])))
    a, b = (scored.load_run(name, output) for name, output in zip(NAMES, outputs, strict=True))
    return a, b, pairs


def compare(a: Run, b: Run, ood: Sequence[tuple[Run, Run]], wanted: float | str, top: int) -> dict[str, Any]:
    """Everything about two runs on the same images, which may differ in model, settings or night.

    Args:
        a, b: the runs.
        ood: for each out-of-distribution set its run with the model and settings of ``a``, and with those of ``b``.
        wanted: see :func:`regrad.runs.rule.parse_rule`. A quantile is taken of each run and score on its own, a value
            or a stored threshold is that of one score in both.
        top: how many images that moved to list.

    Raises:
        UsageError: the runs have no score or no image in common, or the threshold does not fit.
        RegradError: the storage refused or failed.
    """
    names = _common([a, *(pair[0] for pair in ood)], [b, *(pair[1] for pair in ood)])
    main = PREFERRED_SCORE if PREFERRED_SCORE in names else names[0]
    for run in (a, b):
        rule = threshold.given(wanted, names, main, run.settings)
    main = rule.score if rule else main
    with contextlib.ExitStack() as stack:
        pairs = stack.enter_context(Pairs(a, b, names))
        others = {first.name: stack.enter_context(Pairs(first, second, names)) for first, second in ood}
        sample, unknown = PairSample.of(pairs), {name: PairSample.of(other) for name, other in others.items()}
        scores: dict[str, Any] = {}
        separations: dict[str, dict[str, Any]] = {name: {} for name in others}
        moved: tuple[list[Any], list[Any]] = ([], [])
        for name in names:  # one at a time, so that memory does not grow with their number
            movement = _movement(pairs, name)
            bounds = _bounds(movement, wanted, rule)
            ranks = read_ranks(pairs, movement, bounds, top if name == main else 0)
            scores[name] = _score(movement, ranks, bounds, rule, resampled.of_score(sample, name, bounds))
            moved = ranks.moved if name == main else moved
            for set_name, other in others.items():
                separation = movement.separation(_movement(other, name))
                deviation = resampled.of_separation(sample, unknown[set_name], name)
                separations[set_name][name] = side_by_side(separation.auroc, deviation) | {
                    "auroc_error": separation.error
                }
        report = {
            "compare_version": COMPARE_VERSION,
            "main_score": main,
            **{side: _describe(pairs, place) for place, side in enumerate(SIDES)},
            "paired": pairs.paired,
            "labels_differ": pairs.labels_differ,
            "settings": differing(a.info, b.info),
            "bootstrap": bootstrap.SETTINGS | {"pairs": len(sample.rows)},
            "labels": _labels(pairs, resampled.of_labels(sample)),
            "scores": scores,
            "scores_of_one": {side: [name for name in run.scores if name not in names] for side, run in _both(a, b)},
            "ood": {
                name: {side: _describe(other, place) for place, side in enumerate(SIDES)}
                | {"paired": other.paired, "scores": separations[name]}
                for name, other in others.items()
            },
            "moved": dict(zip(("risen", "fallen"), moved, strict=True)),
            "class_names": {side: run.model["class_names"] for side, run in _both(a, b)},
            "runs": {side: run.info for side, run in _both(a, b)},
        }
    return {"headline": words.sentences(report)} | report


def differing(a: dict[str, Any], b: dict[str, Any]) -> list[dict[str, Any]]:
    """The settings in which two runs differ: ``setting`` (a dotted key), and its value in ``a`` and ``b``.

    >>> differing({"config": {"sigma": 0.02, "seed": 0}}, {"config": {"sigma": 0.05, "seed": 0}})
    [{'setting': 'config.sigma', 'a': 0.02, 'b': 0.05}]
    """
    ours, theirs = ({key: value for name in SETTINGS for key, value in _flat(name, run.get(name))} for run in (a, b))
    return [
        {"setting": key, "a": ours.get(key), "b": theirs.get(key)}
        for key in {**ours, **theirs}
        if ours.get(key) != theirs.get(key) and key not in UNIMPORTANT
    ]


def _flat(name: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        return [(name, value)]
    return [pair for key, item in value.items() for pair in _flat(f"{name}.{key}", item)]


def _both(a: Run, b: Run) -> tuple[tuple[str, Run], tuple[str, Run]]:
    return (SIDES[0], a), (SIDES[1], b)


def _common(first: Sequence[Run], second: Sequence[Run]) -> list[str]:
    """The scores that every run has; the runs of one side must have been scored alike."""
    of_first, of_second = (common_scores(runs[0], runs[1:])[0] for runs in (first, second))
    common = [name for name in of_first if name in of_second]
    if not common:
        raise UsageError(
            f"{storage.mask(first[0].output)}: has the scores {', '.join(of_first)}, {storage.mask(second[0].output)} "
            f"has {', '.join(of_second)}: nothing to compare; score both with a common one"
        )
    return common


def _movement(pairs: Pairs, score: str) -> Movement:
    movement = Movement.of(pairs, score)
    if not movement.pairs:
        where = " and ".join(storage.mask(run.output) for run in (pairs.a, pairs.b))
        raise RegradError(f"{where}: no image has a finite value of {score} in both; check the models' outputs")
    return movement


def _bounds(movement: Movement, wanted: float | str, rule: threshold.Threshold | None) -> Bounds | None:
    """The thresholds of the two runs; None for a score that a given threshold is not of."""
    if rule is not None:
        return (rule.value, rule.value) if rule.score == movement.score else None
    share = threshold.share_of(wanted)
    a, b = (threshold.at_quantile(*movement.distribution(side), share) for side in (0, 1))
    return a, b


def _describe(pairs: Pairs, place: int) -> dict[str, Any]:
    run = (pairs.a, pairs.b)[place]
    return {
        "uri": run.output,
        "images": pairs.paired + pairs.only[place] + pairs.repeated[place],
        "only": pairs.only[place],
        "repeated": pairs.repeated[place],
        "quarantined": run.info.get("counts", {}).get("rows_quarantined", 0),
        "status": run.info.get("status"),
        "finished": run.info.get("finished"),
    }


def _labels(pairs: Pairs, deviations: resampled.Deviations) -> dict[str, Any] | None:
    """Accuracy, nll and ece of the pairs that both runs can judge; None where there are none."""
    confidences, losses = (Confidence(), Confidence()), (Losses(), Losses())
    names = ("right", "confidence", "nll")
    for rows in pairs.tables(["judged", *(column(side, name) for side in SIDES for name in names)]):
        labelled = boolean(rows, "judged")
        loss = [floats(rows[column(side, "nll")]) for side in SIDES]
        known = labelled & np.isfinite(loss[0]) & np.isfinite(loss[1])
        for place, side in enumerate(SIDES):
            right = boolean(rows, column(side, "right"))
            confidences[place].add(floats(rows[column(side, "confidence")])[labelled], right[labelled])
            losses[place].add(loss[place][known])
    labelled_pairs = int(confidences[0].images.sum())
    if not labelled_pairs:
        return None
    numbers = [item.numbers() for item in confidences]
    values: dict[str, list[float | None]] = {key: [item[key] for item in numbers] for key in ("accuracy", "ece")}
    values["nll"] = [item.mean() for item in losses]
    metrics = {key: side_by_side(pair, deviations[key]) for key, pair in values.items()}
    return {"labelled": labelled_pairs} | metrics


def _score(
    movement: Movement,
    ranks: Ranks,
    bounds: Bounds | None,
    rule: threshold.Threshold | None,
    deviations: resampled.Deviations,
) -> dict[str, Any]:
    difference, errors = movement.difference(), movement.errors()
    difference["mean"]["interval"] = resampled.interval_around(difference["mean"]["value"], deviations["mean"])
    correlation = resampled.interval_around(ranks.correlation, deviations["correlation"])
    flagged = None
    if ranks.flagged is not None and bounds is not None:
        a, b, both = (number / movement.pairs for number in ranks.flagged)
        # Thresholds that are each run's own quantile make the shares what they are: nothing to be unsure of.
        off = deviations["flagged"] if rule is not None else None
        flagged = {"threshold_a": bounds[0], "threshold_b": bounds[1], **side_by_side((a, b), off)}
        flagged["both"] = {"value": both, "interval": resampled.interval_around(both, deviations["flagged_both"])}
    return {
        "pairs": movement.pairs,
        "left_out": movement.left_out,
        "difference": difference,
        "rank_correlation": {"value": ranks.correlation, "interval": correlation},
        "flagged": flagged,
        "errors": errors and {key: side_by_side(pair, deviations.get(key)) for key, pair in errors.items()},
        "plane": ranks.plane,
    }
