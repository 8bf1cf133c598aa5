"""What a report says in plain words, from its numbers alone."""

from __future__ import annotations

from typing import Any

#: Lower bounds of AUROC, and what a score that reaches them does.
VERDICTS = (
    (0.95, "clearly tells unknown images from known ones"),
    (0.80, "mostly tells unknown images from known ones"),
    (0.60, "only weakly tells unknown images from known ones"),
    (0.40, "cannot tell unknown images from known ones"),
    (0.0, "takes unknown images for more familiar than known ones"),
)


def sentences(report: dict[str, Any]) -> list[str]:
    """The headline first, then what else a data owner should know; without markup.

    Args:
        report: the report of :func:`regrad.report.numbers.summarise`, as far as it has numbers.
    """
    return [
        _headline(report),
        *_hardest(report),
        *_alarm(report),
        *_better(report),
        *_accuracy(report),
        *_left_out(report),
    ]


def percent(share: float) -> str:
    """``share`` with one decimal, never rounded up to 100 % or down to 0 %.

    >>> percent(0.12345), percent(0.99999), percent(1.0), percent(0.0001)
    ('12.3 %', '> 99.9 %', '100 %', '< 0.1 %')
    """
    for bound, text in ((0.0, "0 %"), (1.0, "100 %")):
        if share == bound:
            return text
    if share < 0.0005:
        return "< 0.1 %"
    if share >= 0.9995:
        return "> 99.9 %"
    return f"{100 * share:.1f} %"


def _headline(report: dict[str, Any]) -> str:
    main, separations = report["main_score"], report["scores"][report["main_score"]]["ood"]
    if not separations:
        return (
            f"{count(report['id']['images'], 'image')} scored; how well {main} finds unknown ones needs a set of them"
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
        f"({report['main_score']} ≥ {numbers['threshold95']:.4g})."
        for name, numbers in separations.items()
    ]


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
        return ["No in-distribution labels: whether the classifier is right cannot be known."]
    return [f"The classifier is right on {percent(known['accuracy'])} of {count(known['labelled'], 'labelled image')}."]


def _left_out(report: dict[str, Any]) -> list[str]:
    known, notes = report["id"], []
    if known["labels_outside"]:
        images = count(known["labels_outside"], "in-distribution image")
        notes.append(
            f"{images} with a label outside the model's {known['classes']} classes: left out of accuracy and rAULC."
        )
    for run in (known, *report["ood"]):
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


def count(number: int, noun: str) -> str:
    """A number with its noun, singular or plural.

    >>> count(1, "image"), count(12345, "image")
    ('1 image', '12,345 images')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
