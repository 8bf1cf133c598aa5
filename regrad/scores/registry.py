"""The table of scores: what each is called, what it needs, and how it is computed from that.

To add a score, write one function in a file of this folder and decorate it with ``@score``; its docstring's first line
is what ``jobs/score.py --list-scores`` shows. Larger always means more uncertain.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from regrad.errors import UsageError

FAMILIES = ("gradient", "entropy")


@dataclass(frozen=True)
class Norms:
    """Which class-gradient norms a score is a function of.

    Attributes:
        smoothed: over the perturbed copies (Eq. 13), or on the clean image alone.
        decayed: layers weighed by a_l = exp(lambda (l - L)) (Eq. 12), or all alike.
    """

    smoothed: bool
    decayed: bool


@dataclass(frozen=True)
class Inputs:
    """What a score is computed from, for B images.

    Attributes:
        logits: of the clean image, float64 (B, C).
        norms: ||a * g_c||, float64 (B, C), of the kind the score asked for; None if it asked for none.
    """

    logits: Tensor
    norms: Tensor | None = None

    @property
    def log_p(self) -> Tensor:
        """log softmax of the clean logits, (B, C)."""
        return self.logits.log_softmax(1)

    @property
    def p(self) -> Tensor:
        """Predicted probabilities of the clean image, (B, C)."""
        return self.logits.softmax(1)


@dataclass(frozen=True)
class Score:
    """One column of the score table: B uncertainties from :class:`Inputs`, larger = more uncertain."""

    name: str
    compute: Callable[[Inputs], Tensor]
    norms: Norms | None

    @property
    def summary(self) -> str:
        """The formula in one line."""
        return (self.compute.__doc__ or "").strip().splitlines()[0]


SCORES: dict[str, Score] = {}


def score(norms: Norms | None = None) -> Callable[[Callable[[Inputs], Tensor]], Callable[[Inputs], Tensor]]:
    """Register the decorated function as the score of its name, which needs ``norms``."""

    def register(function: Callable[[Inputs], Tensor]) -> Callable[[Inputs], Tensor]:
        SCORES[function.__name__] = Score(function.__name__, function, norms)
        return function

    return register


def find_scores(names: Sequence[str]) -> list[Score]:
    """The scores called ``names``, in this order.

    Raises:
        UsageError: a name is unknown (the known ones are named) or given twice, or there are none.
    """
    unknown = [name for name in names if name not in SCORES]
    if unknown:
        raise UsageError(f"no score {', '.join(unknown)}; the scores are {', '.join(SCORES)}")
    if not names or len(set(names)) != len(names):
        raise UsageError(f"scores {', '.join(names) or '(none)'}: name at least one, each once")
    return [SCORES[name] for name in names]


def load_families() -> None:
    """Import every family, which fills :data:`SCORES`."""
    for family in FAMILIES:
        importlib.import_module(f"regrad.scores.{family}")
