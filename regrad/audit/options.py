"""The settings that an audit has beside those of scoring, and whether they make sense: told before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from regrad.audit import gates, history, notify
from regrad.errors import require
from regrad.maps import size
from regrad.pages import thumbnails
from regrad.pipeline.options import Options
from regrad.reading.inputs import absolute
from regrad.runs import rule
from regrad.settings.kinds import AT_LEAST_0, AT_LEAST_1, POSITIVE, SWITCH, TEXT, TEXTS, one_of
from regrad.settings.option import Option

DEFAULT_NIGHTS = 7


OPTIONS = (
    Option(
        "baseline",
        "job",
        "audit",
        TEXT,
        None,
        "output of a run with the same model and settings, to compare with",
        metavar="URI",
    ),
    Option(
        "make-baseline",
        "job",
        "audit",
        SWITCH,
        False,
        "where there is no baseline yet, score INPUT as the baseline, and end",
    ),
    Option(
        "gate",
        "job",
        "audit",
        TEXTS,
        [],
        "such as 'flagged_share < 0.10': exit code 3 where it does not hold",
        metavar="CONDITION",
        repeat=True,
    ),
    Option("score", "job", "audit", TEXT, None, "the score that flags images", "the first of --scores", "NAME"),
    Option(
        "threshold",
        "job",
        "audit",
        TEXT,
        rule.DEFAULT,
        "flag images with a score above: quantile=Q of the baseline, a VALUE, or that of a stored threshold.json",
        metavar="RULE",
    ),
    Option("night", "job", "audit", TEXT, None, "name of this night", "the date in UTC", "NAME"),
    Option("nights", "job", "audit", AT_LEAST_0, DEFAULT_NIGHTS, "compare with so many nights before"),
    Option(
        "keep-nights",
        "job",
        "audit",
        AT_LEAST_1,
        None,
        "remove page, flags and audit.json of all but the last so many nights",
        "all stay",
    ),
    Option(
        "notify",
        "job",
        "audit",
        TEXT,
        None,
        "webhook to post the outcome to",
        "$REGRAD_NOTIFY, or none",
        "URL",
    ),
    Option("notify-as", "job", "audit", one_of(*notify.PAYLOADS), "slack", "what the webhook takes"),
    Option("top", "job", "page", AT_LEAST_0, 48, "pictures to show"),
    Option("map-points", "job", "page", size.POINTS, size.DEFAULT, size.ABOUT),
    Option(
        "no-thumbnails",
        "job",
        "page",
        SWITCH,
        False,
        "no pictures on the page: for images that may not leave the bucket",
    ),
    Option(
        "thumbnail-seconds",
        "job",
        "page",
        POSITIVE,
        thumbnails.SECONDS,
        "time for fetching all pictures",
        metavar="SECONDS",
    ),
)
FIRST = ("model", "output", "baseline", "make-baseline", "gate")  # what most nights are typed with


@dataclass(frozen=True)
class Checked:
    """What the options say of the night: its gates, its name, and the webhook that is told of it, and how."""

    gates: list[gates.Gate]
    night: str
    webhook: str | None
    notify_as: str


def check_options(options: Options, environment: Mapping[str, str]) -> Checked:
    """The options of an audit, each looked at.

    Raises:
        UsageError: one of them makes no sense.
    """
    webhook = options.notify or environment.get(notify.VARIABLE)
    webhook = notify.check_url(webhook) if webhook else None
    rule.parse_rule(options.threshold)
    require(
        {
            "--baseline missing: the output of a run on images that the model should know; --make-baseline makes it of "
            "INPUT": bool(options.baseline),
            f"--score {options.score}: not among --scores {','.join(options.scores)}": options.score is None
            or options.score in options.scores,
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
    return Checked(gates.parse_gates(options.gate), night, webhook, options.notify_as)
