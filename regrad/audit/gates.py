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
COUNT, SHARE, NUMBER = "count", "share", "number"


@dataclass(frozen=True)
class Metric:
    """What a gate may speak of.

    Attributes:
        about: what it is, in words.
        kind: a whole ``count``, a ``share``, which pages show in percent, or any ``number``.
    """

    about: str
    kind: str = NUMBER


#: The metrics of a night, which :func:`regrad.audit.night.counted` gives; the same names are columns of
#: ``history.parquet`` and keys of ``audit.json``.
METRICS = {
    "images": Metric("images scored this night", COUNT),
    "flagged": Metric("images above the threshold", COUNT),
    "flagged_share": Metric("share of images above the threshold", SHARE),
    "flagged_share_change": Metric("flagged_share minus that of the nights compared with"),
    "quarantined": Metric("share of rows that could not be scored", SHARE),
    "quarantined_rows": Metric("rows that could not be scored", COUNT),
    "ks": Metric("Kolmogorov-Smirnov statistic of the score against the baseline"),
    "ks_p": Metric("its p-value"),
    "psi": Metric("population stability index of the score against the baseline"),
    "ks_nights": Metric("Kolmogorov-Smirnov statistic of the score against the nights compared with"),
    "psi_nights": Metric("population stability index of the score against the nights compared with"),
    "prediction_psi": Metric("population stability index of the predicted classes against the baseline"),
    "prediction_p": Metric("p-value of the predicted classes' shares against the baseline (chi-squared)"),
    "drifted_classes": Metric("predicted classes whose scores have drifted from the baseline's", COUNT),
    "drifted_sources": Metric("sources whose scores have drifted from the baseline", COUNT),
    "embedding_auroc": Metric("AUROC of a classifier that tells the night's embeddings from the baseline's"),
    "embedding_auroc_p": Metric("its p-value, by permutation"),
    "embedding_mmd": Metric("squared maximum mean discrepancy of the embeddings from the baseline's"),
    "embedding_mmd_p": Metric("its p-value, by permutation"),
    "embedding_classes": Metric("predicted classes whose embeddings or share have drifted from the baseline's", COUNT),
    "coverage": Metric("share of labelled images whose prediction set holds the label", SHARE),
    "set_size": Metric("classes in a prediction set, on average"),
    "doubtful_labels": Metric("share of the labels that the network contradicts", SHARE),
    "accuracy_estimate": Metric("share of right predictions, estimated without labels from the baseline's", SHARE),
    "accuracy": Metric("share of right predictions among the labelled images", SHARE),
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

    >>> parse_gates(["flagged_share < 10%"])[0]
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
