"""Gates: ``METRIC < BOUND``, what a night must hold to pass. Parsed, looked up in a table, compared; never executed."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from regrad.errors import UsageError

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
#: What a gate may speak of; the same names are columns of ``history.parquet`` and keys of ``audit.json``.
METRICS = {
    "images": "images scored this night",
    "flagged": "images above the threshold",
    "flagged_share": "share of images above the threshold",
    "flagged_share_change": "flagged_share minus that of the nights compared with",
    "quarantined": "share of rows that could not be scored",
    "quarantined_rows": "rows that could not be scored",
    "ks": "Kolmogorov-Smirnov statistic of the score against the baseline",
    "ks_p": "its p-value",
    "psi": "population stability index of the score against the baseline",
    "ks_nights": "Kolmogorov-Smirnov statistic of the score against the nights compared with",
    "psi_nights": "population stability index of the score against the nights compared with",
    "prediction_psi": "population stability index of the predicted classes against the baseline",
    "prediction_p": "p-value of the predicted classes' shares against the baseline (chi-squared)",
    "drifted_classes": "predicted classes whose scores have drifted from the baseline's",
    "drifted_sources": "sources whose scores have drifted from the baseline",
    "accuracy": "share of right predictions among the labelled images",
}
HELD, EXCEEDED, NOT_EVALUATED = "held", "exceeded", "not evaluated"
_GATE = re.compile(r"\s*([A-Za-z_]\w*)\s*(<=|>=|==|!=|<|>)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(%?)\s*")


@dataclass(frozen=True)
class Gate:
    """``metric operator bound``: it is exceeded where that does not hold."""

    text: str
    metric: str
    operator: str
    bound: float

    def verdict(self, metrics: Mapping[str, float | None]) -> str:
        """Whether it holds. A metric without a value exceeds its gate, unless there was no image at all."""
        value = metrics[self.metric]
        if value is None:
            return EXCEEDED if metrics["images"] else NOT_EVALUATED
        return HELD if OPERATORS[self.operator](value, self.bound) else EXCEEDED


def parse_gates(texts: Sequence[str]) -> list[Gate]:
    """The gates that ``texts`` write down.

    >>> parse(["flagged_share < 10%"])[0]
    Gate(text='flagged_share < 10%', metric='flagged_share', operator='<', bound=0.1)

    Raises:
        UsageError: one is not METRIC OPERATOR NUMBER, or the metric is unknown.
    """
    return [_gate(text) for text in texts]


def _gate(text: str) -> Gate:
    match = _GATE.fullmatch(text)
    if match is None:
        raise UsageError(
            f"--gate {text!r}: a gate is METRIC OPERATOR NUMBER, such as 'flagged_share < 0.10'; the operators are "
            f"{' '.join(OPERATORS)}, the metrics {', '.join(METRICS)}"
        )
    metric, sign, bound, percent = match.groups()
    if metric not in METRICS:
        raise UsageError(f"--gate {text!r}: no metric {metric}; the metrics are {', '.join(METRICS)}")
    return Gate(" ".join(text.split()), metric, sign, float(bound) / (100 if percent else 1))
