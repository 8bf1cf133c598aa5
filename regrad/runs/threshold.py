"""The value of a score above which an image is flagged: chosen, stored as ``threshold.json``, and used again."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from regrad import storage
from regrad.errors import UsageError
from regrad.metrics import counted
from regrad.runs.scored import Floats, Ints
from regrad.runs.survey import Survey, align
from regrad.settings.scoring import comparable

VERSION = 2


@dataclass(frozen=True)
class Threshold:
    """Flag an image when ``score`` > ``value``; an image that ties with it is not flagged.

    At least the share ``quantile`` of the ``images`` of the ``reference`` run does not lie above; all three are None
    where the value was given. ``settings`` are those a run must share for the value to mean the same on it.
    """

    score: str
    value: float
    settings: dict[str, Any]
    quantile: float | None = None
    reference: str | None = None
    images: int | None = None

    def to_json(self) -> str:
        """The content of ``threshold.json``; infinities become words, as JSON has no number for them."""
        content = {"threshold_version": VERSION} | asdict(self)
        content["reference"] = self.reference and storage.mask(self.reference)
        return json.dumps({key: _word(value) for key, value in content.items()}, indent=2)


def choose_threshold(wanted: float | str, scores: Sequence[str], main: str, reference: Survey) -> Threshold:
    """The threshold that ``wanted`` (of :func:`regrad.runs.rule.parse_rule`) stands for.

    A quantile is the smallest value of ``reference`` that at most 1 - Q of its images exceed.

    Args:
        wanted: see :func:`regrad.runs.rule.parse_rule`.
        scores: those that every run has.
        main: the one to flag by, unless a stored threshold is of another.
        reference: the survey of the run that a quantile is taken of; it is scored like the runs to be flagged.

    Raises:
        UsageError: a stored threshold is damaged, of another score, or of another model or other settings.
    """
    settings = reference.run.settings
    if (threshold := given(wanted, scores, main, settings)) is not None:
        return threshold
    share = share_of(wanted)
    values, (images,), exact = align([reference], main)
    value = at_quantile(values, images, exact, share)
    return Threshold(main, value, settings, share, reference.run.output, int(images.sum()))


def given(wanted: float | str, scores: Sequence[str], main: str, settings: dict[str, Any]) -> Threshold | None:
    """The threshold that ``wanted`` names, a value or a file; None for a quantile. See :func:`choose_threshold`."""
    if isinstance(wanted, float):
        return Threshold(main, wanted, settings)
    return None if wanted.startswith("quantile=") else _stored(wanted, scores, settings)


def share_of(wanted: float | str) -> float:
    """Q of ``quantile=Q``."""
    return float(str(wanted).removeprefix("quantile="))


def at_quantile(values: Floats, images: Ints, exact: bool, share: float) -> float:
    """min { v : at most 1 - ``share`` of the images lie above v }.

    Args:
        values: (k,) ascending; where not ``exact``, the smallest of each cell of neighbouring values.
        images: (k,) images of each.
        exact: whether the values are the images' own.
        share: in (0, 1).
    """
    cell = counted.quantile(images, share)
    if exact or cell + 1 == values.size:
        return float(values[cell])
    return math.nextafter(values[cell + 1], -math.inf)  # no value of the cell lies above


def _stored(uri: str, scores: Sequence[str], settings: dict[str, Any]) -> Threshold:
    where = storage.mask(uri)
    try:
        content = json.loads(storage.read_bytes(uri))
        version = content.pop("threshold_version")
        stored = Threshold(**content)
        value = float(stored.value)
    except FileNotFoundError as error:
        raise UsageError(str(error)) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"{where}: not a threshold.json of regrad report ({storage.reason(error)})") from error
    if version != VERSION:
        raise UsageError(f"{where}: a threshold of version {version}, this regrad reads {VERSION}; choose it again")
    chosen_with = stored.settings | comparable(stored.settings)
    for setting, ours in settings.items():
        if (theirs := chosen_with.get(setting)) != _word(ours):
            raise UsageError(
                f"{where}: chosen on a run scored with {setting} {theirs}, this one is with {ours}; choose it again"
            )
    if stored.score not in scores:
        raise UsageError(f"{where}: a threshold of {stored.score}; the scores here are {', '.join(scores)}")
    return Threshold(**{**asdict(stored), "value": value})


def _word(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _word(item) for key, item in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
