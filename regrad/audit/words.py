"""What an audit says in plain words, from its numbers alone."""

from __future__ import annotations

from typing import Any

from regrad.audit.gates import EXCEEDED, NOT_EVALUATED
from regrad.audit.seen import embedding_drift_in_words
from regrad.formatting import class_name, count, file_name, p_value, percent
from regrad.labels.doubtful import doubts_in_words
from regrad.labels.estimate import estimate_in_words

_SHOWN = 3  # reasons named in one sentence


def sentences(audit: dict[str, Any]) -> list[str]:
    """The headline first, then what else the owner of the data should know; without markup."""
    if not audit["images"]:
        return ["No image came in since the last audit", *_gates(audit), *_again(audit), *_quarantine(audit)]
    return [
        _headline(audit),
        *_gates(audit),
        *_nights(audit),
        _scores(audit),
        _predictions(audit),
        *_slices(audit),
        *embedding_drift_in_words(audit["embedding_drift"], audit["class_names"]),
        *doubts_in_words(audit["doubtful"]),
        *estimate_in_words(audit["accuracy_estimate"], "baseline"),
        *_again(audit),
        *_quarantine(audit),
    ]


def _headline(audit: dict[str, Any]) -> str:
    metrics, known = audit["metrics"], audit["baseline"]["flagged_share"]
    return (
        f"{metrics['flagged']:,} of {count(metrics['images'], 'image')} ({percent(metrics['flagged_share'])}) "
        f"look{'s' if metrics['flagged'] == 1 else ''} unknown to the model; of the baseline {percent(known)} do"
    )


def _gates(audit: dict[str, Any]) -> list[str]:
    gates = audit["gates"]
    failed = [gate for gate in gates if gate["verdict"] == EXCEEDED]
    if failed:
        told = "; ".join(f"{gate['gate']} ({value(gate)})" for gate in failed)
        return [f"Gate exceeded: {told}."]
    idle = sum(gate["verdict"] == NOT_EVALUATED for gate in gates)
    if not gates:
        return []
    held = len(gates) - idle
    said = "The gate holds." if len(gates) == 1 else f"All {len(gates)} gates hold."
    return [said if not idle else f"{count(held, 'gate')} held, {idle} not evaluated, since there was no image."]


def value(gate: dict[str, Any]) -> str:
    """What a gate's metric is, in words."""
    return "it has no value" if gate["value"] is None else f"it is {gate['value']:.4g}"


def _nights(audit: dict[str, Any]) -> list[str]:
    nights, change = audit["compared"]["nights"], audit["metrics"]["flagged_share_change"]
    said = []
    if nights:
        before = audit["metrics"]["flagged_share"] - change
        span = nights[0] if len(nights) == 1 else f"{nights[0]} to {nights[-1]}"
        said.append(f"In {count(len(nights), 'night')} before ({span}) it was {percent(max(before, 0.0))}.")
    if audit["compared"]["left_out"]:
        left = count(len(audit["compared"]["left_out"]), "night")
        said.append(f"{left} before had another baseline or threshold and cannot be compared.")
    return said


def _scores(audit: dict[str, Any]) -> str:
    metrics = audit["metrics"]
    verdict = (
        "The scores have drifted" if metrics["ks_p"] < audit["drifted_below"] else "No drift of the scores is seen"
    )
    return (
        f"{verdict} from the baseline's: KS {metrics['ks']:.3f} ({p_value(metrics['ks_p'])}), PSI {metrics['psi']:.3f} "
        f"(by chance about {audit['chance_psi']:.3f})."
    )


def _predictions(audit: dict[str, Any]) -> str:
    metrics = audit["metrics"]
    verdict = "other" if metrics["prediction_p"] < audit["drifted_below"] else "the same"
    return (
        f"The predicted classes have {verdict} shares{' than' if verdict == 'other' else ' as'} in the baseline: "
        f"PSI {metrics['prediction_psi']:.3f} ({p_value(metrics['prediction_p'])})."
    )


def _slices(audit: dict[str, Any]) -> list[str]:
    said = []
    for kind, key in (("source", "sources"), ("predicted class", "classes")):
        drifted = [entry for entry in audit["rates"][key] if entry["drifted"]]
        if drifted:
            worst = max(drifted, key=lambda entry: entry["ks"])
            name = file_name(worst["source"]) if key == "sources" else class_name(worst["class"], audit["class_names"])
            tested = sum(entry["p"] is not None for entry in audit["rates"][key])
            plural = "" if tested == 1 else "es" if key == "classes" else "s"
            said.append(
                f"{len(drifted)} of {tested} {kind}{plural} drifted (corrected for all that were tested), most of all "
                f"{name}: {worst['flagged']:,} of {count(worst['images'], 'image')} flagged."
            )
    return said


def _again(audit: dict[str, Any]) -> list[str]:
    rows = sum(audit["again"].values())
    if not rows:
        return []
    return [
        f"{count(rows, 'row')} came by again in sources that have changed: an earlier night has counted "
        f"{'it' if rows == 1 else 'them'}, or the baseline holds {'it' if rows == 1 else 'them'}."
    ]


def _quarantine(audit: dict[str, Any]) -> list[str]:
    rows = audit["metrics"]["quarantined_rows"]
    if not rows:
        return []
    reasons = [f"{number} {reason}" for reason, number in list(audit["quarantine"].items())[:_SHOWN]]
    return [f"{count(rows, 'row')} could not be scored: {'; '.join(reasons)}."]
