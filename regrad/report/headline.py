"""What a report says in plain words, from its numbers alone."""

from __future__ import annotations

from typing import Any

from regrad.formatting import class_name, count, file_name, percent
from regrad.labels.doubtful import doubts_in_words
from regrad.labels.estimate import estimate_in_words
from regrad.metrics.wilson import share_interval

#: Lower bounds of AUROC, and what a score that reaches them does.
VERDICTS = (
    (0.95, "clearly tells unknown images from known ones"),
    (0.80, "mostly tells unknown images from known ones"),
    (0.60, "only weakly tells unknown images from known ones"),
    (0.40, "cannot tell unknown images from known ones"),
    (0.0, "takes unknown images for more familiar than known ones"),
)
_NAMED = 3  # scores in one sentence


def sentences(report: dict[str, Any]) -> list[str]:
    """The headline first, then what else a data owner should know; without markup.

    Args:
        report: the report of :func:`regrad.report.numbers.summarise`, as far as it has numbers.
    """
    return [
        _headline(report),
        *_hardest(report),
        *_alarm(report),
        *_flagged(report),
        *_worst(report),
        *_better(report),
        *_accuracy(report),
        *doubts_in_words(report["doubtful"]),
        *estimate_in_words(report["accuracy_estimate"], "reference"),
        *_sets(report),
        *_errors(report),
        *_unknowable(report),
        *_left_out(report),
        *_next(report),
    ]


def _headline(report: dict[str, Any]) -> str:
    main, separations = report["main_score"], report["scores"][report["main_score"]]["ood"]
    if not separations:
        rates = report["rates"][report["id"]["name"]]
        return (
            f"{rates['flagged']:,} of {count(rates['images'], 'image')} ({percent(rates['share'])}) "
            f"look{'s' if rates['flagged'] == 1 else ''} unknown to the model"
        )
    value = min(numbers["auroc"] for numbers in separations.values())
    verdict = next(words for bound, words in VERDICTS if value >= bound)
    return f"{main} {verdict}: the unknown one scores higher in {percent(value)} of pairs"


def _hardest(report: dict[str, Any]) -> list[str]:
    separations = report["scores"][report["main_score"]]["ood"]
    if len(separations) < 2:
        return []
    ranked = sorted(separations, key=lambda name: separations[name]["auroc"])
    hard, easy = (f"{name} ({percent(separations[name]['auroc'])})" for name in (ranked[0], ranked[-1]))
    return [f"That is the hardest of the {len(ranked)} unknown sets, {hard}; the easiest is {easy}."]


def _alarm(report: dict[str, Any]) -> list[str]:
    separations = report["scores"][report["main_score"]]["ood"]
    return [
        f"A threshold that catches 95 % of {name} flags {percent(numbers['fpr95'])} of the known images with them "
        f"({report['main_score']} > {numbers['threshold95']:.4g})."
        for name, numbers in separations.items()
    ]


def _flagged(report: dict[str, Any]) -> list[str]:
    rule, rates = report["threshold"], report["rates"][report["id"]["name"]]
    flagged = f"{count(rates['flagged'], 'image')} ({percent(rates['share'])}) flagged by "
    flagged += f"{report['main_score']} > {rule['value']:.4g}"
    if rule["quantile"] is None:
        return [f"{flagged}, the threshold that was given."]
    expected = percent(1 - rule["quantile"])
    if rule["reference"] == report["id"]["uri"]:
        return [f"{flagged}: the most uncertain {expected} of this run itself. Only a reference run makes it an alarm."]
    low, high = rates["interval"]
    share = 1 - rule["quantile"]
    verdict = "more than" if low > share else "fewer than" if high < share else "as many as"
    return [f"{flagged}, {verdict} the {expected} that the threshold flags of its reference run."]


def _worst(report: dict[str, Any]) -> list[str]:
    """The shard and the class that stand out, if one does for sure."""
    rates, names, sentences = report["rates"][report["id"]["name"]], report["class_names"], []
    for kind, groups in (("shard", rates["sources"]), ("predicted class", rates["classes"])):
        worst = groups[0] if len(groups) > 1 else None
        if worst and share_interval(worst["flagged"], worst["images"])[0] > rates["share"]:
            name = file_name(worst["source"]) if kind == "shard" else class_name(worst["class"], names)
            sentences.append(
                f"The {kind} with most of them is {name}: {worst['flagged']:,} of "
                f"{count(worst['images'], 'image')} flagged, {percent(worst['share'])}."
            )
    return sentences


def _better(report: dict[str, Any]) -> list[str]:
    if len(report["scores"]) < 2 or not report["ood"]:
        return []
    mean = {
        name: sum(item["auroc"] for item in numbers["ood"].values()) / len(numbers["ood"])
        for name, numbers in report["scores"].items()
    }
    best, main = max(mean, key=lambda name: mean[name]), report["main_score"]
    if mean[best] <= mean[main]:
        return [f"No other score of this run separates better than {main} (mean AUROC {percent(mean[main])})."]
    return [
        f"{best} separates better than {main} here: mean AUROC {percent(mean[best])} against {percent(mean[main])}."
    ]


def _accuracy(report: dict[str, Any]) -> list[str]:
    known = report["id"]
    if known["accuracy"] is None:
        return []
    right = f"The classifier is right on {percent(known['accuracy'])} of {count(known['labelled'], 'labelled image')}"
    return [f"{right}; its confidence is off by {percent(known['ece'])} on average (ECE)."]


def _sets(report: dict[str, Any]) -> list[str]:
    """What prediction sets promise, hold and cost."""
    sets, covered = report["id"].get("sets"), report["id"].get("covered")
    if not sets:
        return []
    size = f"{sets['mean_size']:.2f} classes on average, {percent(sets['empty'])} of them none"
    if not covered:
        return [f"Prediction sets for {percent(sets['coverage'])} of images like those of the calibration have {size}."]
    low, high = (percent(end) for end in covered["interval"])
    missed = " That is less: these images may not be like those of the calibration."
    return [
        f"Prediction sets for {percent(sets['coverage'])} hold the label of {percent(covered['share'])} ({low} to "
        f"{high}) of {count(covered['labelled'], 'labelled image')}; they have {size}."
        + (missed if covered["interval"][1] < sets["coverage"] else "")
    ]


def _errors(report: dict[str, Any]) -> list[str]:
    best = report["best_at_errors"]
    if best is None:
        return []
    others, level = len(best["behind"]), best["level"]
    if not level:
        told = "surely ahead of " + ("the other score" if others == 1 else f"all {others} other scores")
    elif len(level) == others:
        told = "but no other score of this run is surely behind it"
    else:
        told = f"surely ahead of {count(others - len(level), 'other')}; {_listed(level)} may be as good"
    return [f"{best['score']} finds the classifier's errors best (AUROC {percent(best['auroc'])}), {told}."]


def _listed(names: list[str]) -> str:
    """The first of ``names``, and how many more there are."""
    shown, more = names[:_NAMED], len(names) - _NAMED
    if more > 0:
        shown.append(f"{more} more")
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _unknowable(report: dict[str, Any]) -> list[str]:
    notes = []
    if report["id"]["accuracy"] is None:
        notes.append("No labels: accuracy, calibration and whether flagged images are errors cannot be known.")
    if not report["ood"]:
        notes.append("No set of unknown images: how many of them the threshold would miss cannot be known.")
    return notes


def _left_out(report: dict[str, Any]) -> list[str]:
    known, notes = report["id"], []
    if known["labels_outside"]:
        images = count(known["labels_outside"], "in-distribution image" if report["ood"] else "image")
        notes.append(
            f"{images} with a label outside the model's {known['classes']} classes: left out of accuracy and rAULC."
        )
    for run in (known, *report["ood"], *([report["reference"]] if report["reference"] else [])):
        if run["status"] != "done":
            notes.append(f"The run of {run['name']} is not complete (status: {run['status']}): numbers are of a part.")
        if run["quarantined"]:
            notes.append(
                f"{count(run['quarantined'], 'image')} of {run['name']} could not be scored: see its quarantine."
            )
    for name, numbers in report["scores"].items():
        if numbers["left_out"]:
            notes.append(f"{count(numbers['left_out'], 'image')} without a value of {name} (NaN): left out of its row.")
    return notes


def _next(report: dict[str, Any]) -> list[str]:
    if not any(rates["flagged"] for rates in report["rates"].values()):
        return []
    return [
        "What now: look at the pictures; flags/ lists the flagged images by source, row and id, to drop them or to "
        "label them."
    ]
