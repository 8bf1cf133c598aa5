"""What an audit can be told, beside the options of scoring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from regrad.audit import gates, history, notify
from regrad.errors import require
from regrad.pages import thumbnails
from regrad.pipeline.options import Option, Options, count, switch, whole
from regrad.reading.inputs import absolute
from regrad.runs import threshold

DEFAULT_NIGHTS = 7


def listed(value: Any) -> list[str]:
    """One text or several, as a list."""
    return [str(item) for item in (value if isinstance(value, list) else [value])]


def seconds(value: Any) -> float:
    """A number above 0."""
    number = float(value)
    if not number > 0:
        raise ValueError
    return number


OPTIONS = (
    Option("baseline", "job", str, None, "output of a run with the same model and settings, to compare with"),
    Option(
        "make-baseline", "job", switch, False, "where there is no baseline yet, score INPUT as the baseline, and end"
    ),
    Option("score", "job", str, None, "the score that flags images; default: the first of --scores"),
    Option(
        "threshold",
        "job",
        str,
        threshold.DEFAULT,
        "flag images with a score above: quantile=Q of the baseline, a VALUE, or that of a stored threshold.json",
    ),
    Option(
        "gate", "job", listed, [], "such as 'flagged_share < 0.10': exit code 3 where it does not hold", repeat=True
    ),
    Option("night", "job", str, None, "name of this night; default: the date in UTC"),
    Option("nights", "job", whole, DEFAULT_NIGHTS, "compare with so many nights before"),
    Option("keep-nights", "job", count, None, "remove page, flags and audit.json of all but the last so many nights"),
    Option("notify", "job", str, None, "webhook (Slack-compatible) to post the outcome to; default: $REGRAD_NOTIFY"),
    Option("top", "job", whole, 48, "pictures to show"),
    Option("no-thumbnails", "job", switch, False, "no pictures on the page: for images that may not leave the bucket"),
    Option("thumbnail-seconds", "job", seconds, thumbnails.SECONDS, "time for fetching all pictures"),
)


@dataclass(frozen=True)
class Checked:
    """What the options say of the night: its gates, its name, and the webhook that is told of it."""

    gates: list[gates.Gate]
    night: str
    webhook: str | None


def check_options(options: Options, environment: Mapping[str, str]) -> Checked:
    """The options of an audit, each looked at.

    Raises:
        UsageError: one of them makes no sense.
    """
    webhook = options.notify or environment.get(notify.VARIABLE)
    webhook = notify.check_url(webhook) if webhook else None
    threshold.parse(options.threshold)
    require(
        {
            "--baseline missing: the output of a run on images that the model should know; --make-baseline makes it of "
            "INPUT": bool(options.baseline),
            f"--score {options.score}: not among --scores {','.join(options.scores)}": options.score is None
            or options.score in options.scores,
            "--nights, --top: must not be negative": options.nights >= 0 and options.top >= 0,
            f"--keep-nights {options.keep_nights}: must be at least --nights {options.nights} + 1, since a night is "
            "compared with those before": options.keep_nights is None or options.keep_nights > options.nights,
        }
    )
    require(
        {
            "--baseline and --output are the same; give each a prefix of its own": absolute(options.baseline)
            != absolute(options.output)
        }
    )
    night = history.check_name(options.night or history.tonight())
    return Checked(gates.parse(options.gate), night, webhook)
