"""The table of scores: what each is called, what it needs, and how it is computed from that.

To add a score, write one function in a file of this folder and decorate it with ``@score``; its docstring, the formula
first, is what ``regrad score --list-scores`` shows. Larger always means more uncertain. A score of your own may stay
in a module of your own: name it with ``--score-module``, or as an entry point of the group ``regrad.scores``.
"""

from __future__ import annotations

import importlib
import inspect
import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from regrad.cli import nearest
from regrad.errors import UsageError
from regrad.importing.code import users_code
from regrad.importing.folders import on_path
from regrad.network.head import Head
from regrad.settings.columns import FIXED, SEVERAL

if TYPE_CHECKING:
    from regrad.scores.statistics import FeatureStatistics

EXPONENT = "exponent"  # as a power: Scorer's own
FAMILIES = ("gradient", "perturbation", "entropy", "features", "fitted")
ENTRY_POINTS = "regrad.scores"


@dataclass(frozen=True)
class Norms:
    """Class-gradient norms.

    Attributes:
        smoothed: over the perturbed copies (Eq. 13), or on the clean image alone.
        decayed: layers weighed by a_l = exp(lambda (l - L)) (Eq. 12), or all alike.
        target: None: ||g_c|| for every class, (B, C). ``predicted`` or ``uniform``: ||sum_c q_c g_c|| with q = p or
            q = 1 / C, (B,). ``contrast``: ||g_c - g_y||, y the most probable class on the clean image, (B, C).
        power: gamma, where the score is sum_c p_c^gamma ||a g_c||, or :data:`EXPONENT`, the gamma of ``--exponent``: of
            classes that weigh little in that sum the first layers may be estimated, as ``--tolerance`` allows. None
            where it makes anything else of the norms: then each class is as precise as any.
    """

    smoothed: bool
    decayed: bool
    target: str | None = None
    power: float | str | None = None

    @property
    def of_each_class(self) -> bool:
        """Whether there is a norm for every class."""
        return self.target in (None, "contrast")


@dataclass(frozen=True)
class Predictions:
    """Log-probabilities of K perturbed predictions, (B, K, C).

    Attributes:
        source: ``noise`` (the noisy copies), ``parameters``, ``dropout`` or ``adversarial`` (see
            :mod:`regrad.scores.draws.predictions`), or ``laplace`` (:mod:`regrad.scores.draws.posterior`).
    """

    source: str


@dataclass(frozen=True)
class Features:
    """The input h of the last Linear layer on the clean image, and that layer, z = W h + b.

    Attributes:
        fitted: whether statistics of h over training data (``--fit-data``) are needed too.
    """

    fitted: bool = False


Need = Norms | Predictions | Features


@dataclass(frozen=True)
class Inputs:
    """What a score is computed from, for B images.

    Attributes:
        logits: of the clean image, float64 (B, C).
        norms: of the kind the score asked for, float64 (B, C), or (B,) for a target; None if it asked for none.
        draws: log-probabilities of the kind it asked for, float64 (B, K, C); None if it asked for none.
        features: h, float64 (B, d), if it asked for features; else None.
        head: the layer that makes the logits of them; None where ``features`` are.
        fitted: statistics of the features of training data, if it asked for them; else None.
        exponent: gamma, to which REGrad raises the probabilities.
    """

    logits: Tensor
    norms: Tensor | None = None
    draws: Tensor | None = None
    features: Tensor | None = None
    head: Head | None = None
    fitted: FeatureStatistics | None = None
    exponent: float = 0.5

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
    need: Need | None

    @property
    def norms(self) -> Norms | None:
        """The class-gradient norms it needs, if any."""
        return self.need if isinstance(self.need, Norms) else None

    @property
    def predictions(self) -> Predictions | None:
        """The perturbed predictions it needs, if any."""
        return self.need if isinstance(self.need, Predictions) else None

    @property
    def features(self) -> Features | None:
        """The features it needs, if any."""
        return self.need if isinstance(self.need, Features) else None

    @property
    def fitted(self) -> str | None:
        """Which of :data:`regrad.settings.scoring.FITTED` it needs, if any: then it needs training data."""
        if self.predictions and self.predictions.source == "laplace":
            return "posterior"
        return "statistics" if self.features and self.features.fitted else None

    def own(self, norms: Tensor) -> Tensor:
        """``norms`` (B, T) as it takes them: (B, C), or (B,) where it asked for a single one."""
        return norms if self.norms and self.norms.of_each_class else norms[:, 0]

    def standard_error(self, inputs: Inputs, without_each: Tensor | None) -> Tensor:
        """sqrt((k-1)/k sum_j (U_(j) - mean U)^2), U_(j) from the norms without draw j: float64 (B,).

        Args:
            inputs: what the score was made of.
            without_each: the norms without each of k draws, (k, 1, B, T); None where nothing is drawn: all is 0.

        Source: the jackknife, Tukey 1958.
        """
        if without_each is None:
            return inputs.logits.new_zeros(len(inputs.logits))
        values = torch.stack([self.compute(replace(inputs, norms=self.own(others[0]))) for others in without_each])
        return (values.var(0, correction=0) * (len(values) - 1)).sqrt()

    @property
    def description(self) -> str:
        """The formula in one line, then caveats and the source."""
        return inspect.getdoc(self.compute) or "(no description)"


SCORES: dict[str, Score] = {}
_loaded: list[bool] = []  # whether the modules of installed packages were


def score(need: Need | None = None) -> Callable[[Callable[[Inputs], Tensor]], Callable[[Inputs], Tensor]]:
    """Register the decorated function as the score of its name, which needs the logits and ``need``."""

    def register(function: Callable[[Inputs], Tensor]) -> Callable[[Inputs], Tensor]:
        if function.__name__ in (*FIXED, *SEVERAL):
            raise UsageError(
                f"{function.__module__}: the score table has a column {function.__name__} of its own; name "
                "the score differently"
            )
        held = SCORES.get(function.__name__)
        if held is not None and held.compute.__module__ != function.__module__:
            raise UsageError(
                f"{function.__module__}: a score {function.__name__} is there already; name it differently"
            )
        SCORES[function.__name__] = Score(function.__name__, function, need)
        return function

    return register


def in_order(names: Sequence[str]) -> list[str]:
    """``names`` in the order of the registry, each once, so that the order in which they were typed means nothing.

    Raises:
        UsageError: a name is unknown.
    """
    load_installed()
    _refuse_unknown(names)
    return [name for name in SCORES if name in names]


def find_scores(names: Sequence[str]) -> list[Score]:
    """The scores called ``names``, in this order.

    Raises:
        UsageError: a name is unknown (the known ones are named) or given twice, or there are none.
    """
    load_installed()
    _refuse_unknown(names)
    if not names or len(set(names)) != len(names):
        raise UsageError(f"scores {', '.join(names) or '(none)'}: name at least one, each once")
    return [SCORES[name] for name in names]


def _refuse_unknown(names: Sequence[str]) -> None:
    unknown = [name + nearest(name, SCORES) for name in names if name not in SCORES]
    if unknown:
        raise UsageError(f"no score {', '.join(unknown)}; the scores are {', '.join(SCORES)}")


def load_families() -> None:
    """Import every family, which fills :data:`SCORES`."""
    for family in FAMILIES:
        importlib.import_module(f"regrad.scores.{family}")


def load_installed() -> None:
    """Import the modules of scores that installed packages name, once: when scores are asked for, and not while regrad
    is being imported, of which such a module may use all."""
    if _loaded:
        return
    _loaded.append(True)
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        try:
            entry.load()
        except Exception as error:  # somebody else's package must not keep this one from working
            warnings.warn(f"scores of {entry.value} cannot be loaded: {error}", stacklevel=2)


def listing(modules: Sequence[str] = ()) -> str:
    """What ``--list-scores`` shows: every score there is, those of ``modules`` among them.

    Raises:
        UsageError: see :func:`load_module`.
    """
    load_installed()
    for module in modules:
        load_module(module)
    return "\n\n".join(f"{score.name}\n{textwrap.indent(score.description, '    ')}" for score in SCORES.values())


def load_module(name: str) -> None:
    """Import a module of scores.

    Raises:
        UsageError: there is no such module, its own code fails, or it defines no score.
    """
    load_installed()
    before = set(SCORES)
    on_path()
    try:
        with users_code(f"--score-module {name}", name):
            module = importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"--score-module {name}: {error}; it must be importable from the working directory") from error
    if set(SCORES) == before and not any(item.compute.__module__ == module.__name__ for item in SCORES.values()):
        raise UsageError(f"--score-module {name}: it defines no score; decorate a function with regrad.scores.score")
