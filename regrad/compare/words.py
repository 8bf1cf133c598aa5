"""What a comparison says in plain words, from its numbers alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from regrad.formatting import count, percent

#: Lower bounds of the rank correlation, and what it says of two orders.
VERDICTS = (
    (0.99, "put the images in almost the same order"),
    (0.9, "put the images in much the same order"),
    (0.5, "put the images in only roughly the same order"),
    (-1.0, "put the images in different orders"),
)


def sentences(report: dict[str, Any]) -> list[str]:
    """The headline first, then what else one should know; without markup.

    Args:
        report: the comparison of :func:`regrad.compare.numbers.compare`.
    """
    return [_headline(report), *_settings(report), *_flagged(report), *_judged(report), *_left_out(report)]


def _headline(report: dict[str, Any]) -> str:
    main = report["main_score"]
    correlation = report["scores"][main]["rank_correlation"]["value"]
    if correlation is None:
        return f"A and B cannot be ranked: {main} is the same for every image of one of them"
    verdict = next(words for bound, words in VERDICTS if correlation >= bound - 1e-9)
    return f"A and B {verdict}: the rank correlation of {main} is {correlation:.3f}"


def _settings(report: dict[str, Any]) -> list[str]:
    names = [entry["setting"].rpartition(".")[2].replace("_", " ") for entry in report["settings"]]
    if not names:
        return ["No setting differs: what moved is the images, the storage or the arithmetic."]
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    return [f"They differ in {shown}."]


def _flagged(report: dict[str, Any]) -> list[str]:
    main, flagged = report["main_score"], report["scores"][report["main_score"]]["flagged"]
    if flagged is None:
        return []
    either = flagged["a"] + flagged["b"] - flagged["both"]["value"]
    said = f"By {main}, A flags {percent(flagged['a'])} of the images and B {percent(flagged['b'])}"
    if not either:
        return [f"{said}."]
    return [f"{said}; of those flagged by either, {percent(flagged['both']['value'] / either)} are flagged by both."]


def _judged(report: dict[str, Any]) -> list[str]:
    """One sentence for each thing that better and worse can be said of."""
    main, verdicts = report["main_score"], []
    for name, other in report["ood"].items():
        verdicts.append(_better(f"{main} at telling {name} apart (AUROC)", other["scores"][main]))
    if report["labels"]:
        verdicts.append(_better("the classifier (accuracy)", report["labels"]["accuracy"]))
        verdicts.append(_better(f"{main} at finding its errors (AUROC)", report["scores"][main]["errors"]["auroc"]))
    else:
        verdicts.append("No labels: which run finds errors better cannot be known.")
    return verdicts


def _better(what: str, metric: dict[str, Any]) -> str:
    if metric["difference"] is None or metric["interval"] is None:
        return f"{what[0].upper()}{what[1:]}: cannot be told, see the table."
    low, high = metric["interval"]
    values = f"{percent(metric['b'])} against {percent(metric['a'])} ({_points(low)} to {_points(high)} points)"
    if low > 0:
        return f"B is better for {what}: {values}."
    if high < 0:
        return f"B is worse for {what}: {values}."
    return f"No sure difference for {what}: {values}."


def _points(difference: float) -> str:
    """A difference of shares in percentage points.

    >>> _points(0.0123), _points(-0.00001), _points(0.0)
    ('+1.23', '-0.001', '+0')
    """
    return f"{100 * difference:+.3g}"


def _left_out(report: dict[str, Any]) -> list[str]:
    notes = [_unpaired("", report)]
    notes += [_unpaired(f"Of {name}: ", other) for name, other in report["ood"].items()]
    for side, name in (("a", "A"), ("b", "B")):
        for run in (report, *report["ood"].values()):
            if run[side]["status"] != "done":
                notes.append(f"A run of {name} is not complete (status: {run[side]['status']}): numbers are of a part.")
        if report["scores_of_one"][side]:
            notes.append(f"Only {name} has {_list(report['scores_of_one'][side])}: not compared.")
    if report["labels_differ"]:
        differing = count(report["labels_differ"], "image")
        notes.append(f"{differing} with another label in B than in A: each run is judged by its own.")
    for name, numbers in report["scores"].items():
        if numbers["left_out"]:
            notes.append(f"{count(numbers['left_out'], 'pair')} without a finite value of {name}: left out of its row.")
    return notes


def _unpaired(of: str, joined: dict[str, Any]) -> str:
    said = f"{of}{count(joined['paired'], 'image')} in both runs; {joined['a']['only']:,} only in A, "
    said += f"{joined['b']['only']:,} only in B."
    repeated = joined["a"]["repeated"] + joined["b"]["repeated"]
    if repeated:
        said += f" {count(repeated, 'row')} with an id that is not unique in its source: left out."
    return said


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)
