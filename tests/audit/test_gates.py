"""Gates: parsed, never executed; what is unknown is refused with what is known."""

from __future__ import annotations

import pytest

from regrad.audit.gates import EXCEEDED, HELD, METRICS, NOT_EVALUATED, parse_gates
from regrad.errors import UsageError


@pytest.mark.parametrize(
    ("text", "value", "verdict"),
    [
        ("flagged_share < 0.10", 0.0999, HELD),
        ("flagged_share < 0.10", 0.1, EXCEEDED),
        ("flagged_share<=10%", 0.1, HELD),
        ("  psi  <  .2 ", 0.3, EXCEEDED),
        ("images >= 1000", 999, EXCEEDED),
        ("images > 1e3", 1001, HELD),
        ("drifted_sources == 0", 0, HELD),
        ("drifted_sources != 0", 0, EXCEEDED),
        ("flagged_share_change < -0.5", -0.6, HELD),
    ],
)
def test_a_gate_is_what_must_hold(text: str, value: float, verdict: str) -> None:
    (gate,) = parse_gates([text])
    metrics = dict.fromkeys(METRICS, 1.0) | {gate.metric: value}
    assert gate.verdict(metrics) == verdict


def test_a_metric_without_a_value_is_no_pass() -> None:
    (gate,) = parse_gates(["accuracy > 0.9"])
    assert gate.verdict({"accuracy": None, "images": 5}) == EXCEEDED
    assert gate.verdict({"accuracy": None, "images": 0}) == NOT_EVALUATED


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flagged < ", "METRIC OPERATOR NUMBER"),
        ("__import__('os').system('true') < 1", "METRIC OPERATOR NUMBER"),
        ("psi < 0.2 or True", "METRIC OPERATOR NUMBER"),
        ("psi < ks", "METRIC OPERATOR NUMBER"),
        ("psy < 0.2", "no metric psy; the metrics are images, flagged, flagged_share,"),
        ("", "METRIC OPERATOR NUMBER"),
    ],
)
def test_anything_else_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_gates([text])
