"""When an image is flagged, as it is typed: ``quantile=Q``, a value of the score, or a stored ``threshold.json``."""

from __future__ import annotations

import math

from regrad.errors import UsageError

DEFAULT = "quantile=0.95"


def parse_rule(text: str) -> float | str:
    """``quantile=Q`` or the place of a ``threshold.json`` as they are, a number as a number.

    >>> parse_rule("2.5"), parse_rule("quantile=0.95"), parse_rule("s3://bucket/report/threshold.json")
    (2.5, 'quantile=0.95', 's3://bucket/report/threshold.json')

    Raises:
        UsageError: none of the three.
    """
    if text.startswith("quantile="):
        share = _number(text.removeprefix("quantile="))
        if share is None or not 0 < share < 1:
            raise UsageError(f"{text!r}: a quantile is a number between 0 and 1, such as quantile=0.95")
        return text
    if text.endswith(".json"):
        return text
    value = _number(text)
    if value is None or math.isnan(value):
        raise UsageError(f"threshold {text!r}: give quantile=0.95, a value of the score, or a threshold.json")
    return value


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
