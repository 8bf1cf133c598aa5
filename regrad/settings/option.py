"""One setting: its flag, its key in a file, its kind, what it is for, and what of the rows depends on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from regrad.settings.kinds import ValueKind

# What of an output's rows a setting decides. Runs compare where their settings of MEANING are the same; a unit is
# scored again where one of any of the first three has changed.
MEANING = "meaning"  # what a score means
VALUE = "value"  # the number that an image gets, of the same meaning
ROWS = "rows"  # which rows and columns there are
NOTHING = "nothing"  # how the work is done
_DECIDES = {
    "scorer": MEANING,
    "model": VALUE,
    "plugin": VALUE,
    "fit": VALUE,
    "read": ROWS,
    "run": NOTHING,
    "job": NOTHING,
}


@dataclass(frozen=True, eq=False)
class Option:
    """One setting.

    Attributes:
        name: as on the command line, behind two dashes.
        role: who takes it: ``model`` (Classifier.load), ``scorer`` (Scorer), ``plugin`` (the registry of scores),
            ``fit`` (the posterior of ``laplace``), ``read`` (how rows are read and cut) or ``run`` (how the work is
            done). Commands that score as one of their steps have options of their own, of the role ``job``.
        group: where ``--help`` shows it.
        kind: what it may be.
        help: what it is for.
        unset: what a default of None stands for, in words.
        metavar: what stands for the value; None: as its kind has it.
        repeat: whether the flag takes several values and may be given again; then ``kind`` takes a list.
        decides: what of the rows depends on it, if something else than is usual for its role.
        later: whether there were outputs before there was the option. At its default it is then no part of a
            configuration, so that the units of those outputs stay valid.
    """

    name: str
    role: str
    group: str
    kind: ValueKind
    default: Any
    help: str
    unset: str = ""
    metavar: str | None = None
    repeat: bool = False
    decides: str = ""
    later: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "decides", self.decides or _DECIDES[self.role])

    @property
    def key(self) -> str:
        """``name`` as a Python name: the key in ``--config`` and in ``run.json``."""
        return self.name.replace("-", "_")

    def held(self, configuration: Mapping[str, Any]) -> Any:
        """Its value in a stored ``configuration``; None where that does not say."""
        return configuration.get(self.key, self.default if self.later else None)
