"""The settings of :class:`regrad.Scorer`, each once: flags, ranges and what depends on them come from this table.

A setting of the scorer is a line here and a parameter of the same name, with the same default, in ``regrad/scorer.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from regrad.errors import UsageError
from regrad.settings.kinds import (
    AT_LEAST_0,
    AT_LEAST_1,
    BETWEEN,
    NAMES,
    SWITCH,
    WrongValue,
    finite,
    number,
    one_of,
    whole_number,
)
from regrad.settings.option import MEANING, ROWS, VALUE, Option

SCORER = (
    Option("scores", "scorer", "scores", NAMES, ["regrad"], "comma-separated; --list-scores shows them", decides=ROWS),
    Option("sigma", "scorer", "scores", finite(0), 0.02, "deviation of the smoothing noise"),
    Option("samples", "scorer", "scores", AT_LEAST_0, 10, "noisy copies of every image; 0 turns smoothing off"),
    Option(
        "depth-decay",
        "scorer",
        "scores",
        number(least=0),
        0.3,
        "lambda, how fast layers lose weight with distance; inf: the last alone",
    ),
    Option(
        "exponent",
        "scorer",
        "scores",
        finite(0),
        0.5,
        "gamma: REGrad weighs the gradient of a class by p^gamma",
        later=True,
    ),
    Option("seed", "scorer", "scores", whole_number(), 0, "of the noise", decides=VALUE),
    Option(
        "noise-space",
        "scorer",
        "scores",
        one_of("normalized", "pixel"),
        "normalized",
        "normalized: what the network receives; pixel: [0, 1]",
    ),
    Option(
        "layers",
        "scorer",
        "scores",
        one_of("modules", "stages"),
        "modules",
        "what a layer is: a module, or a stage (top-level child)",
    ),
    Option(
        "draws",
        "scorer",
        "scores",
        AT_LEAST_1,
        10,
        "perturbed predictions of perturb_theta, mc_aa, inserted_dropout and laplace",
    ),
    Option("theta-sigma", "scorer", "scores", finite(0), 1e-3, "deviation of every parameter for perturb_theta"),
    Option("dropout-rate", "scorer", "scores", number(least=0, below=1), 0.1, "of inserted_dropout"),
    Option(
        "dropout-at",
        "scorer",
        "scores",
        one_of("all", "last"),
        "all",
        "inserted_dropout's places: all layers but the first, or the last",
    ),
    Option(
        "engine",
        "scorer",
        "engine",
        one_of("auto", "exact", "sketch", "reference"),
        "auto",
        "how gradients are computed; reference: in float64, slow, for checks",
    ),
    Option(
        "tolerance",
        "scorer",
        "engine",
        number(least=0, below=1),
        2e-3,
        "share of the squared gradient that may be left out upstream",
    ),
    Option("directions", "scorer", "engine", AT_LEAST_1, 16, "random directions that the sketch engine draws"),
    Option(
        "standard-errors",
        "scorer",
        "engine",
        SWITCH,
        False,
        "add SCORE_se, what the sketch's directions leave uncertain",
        decides=ROWS,
    ),
    Option(
        "logits",
        "scorer",
        "scores",
        SWITCH,
        False,
        "keep the clean image's logits, float32, which cost no further pass",
        decides=ROWS,
        later=True,
    ),
    Option(
        "embeddings",
        "scorer",
        "scores",
        SWITCH,
        False,
        "keep in OUT/embeddings what the last Linear layer is given of the clean image, float16",
        decides=ROWS,
        later=True,
    ),
    Option(
        "coverage",
        "scorer",
        "scores",
        BETWEEN,
        None,
        "add prediction_set, classes that hold the image's own with this probability; needs --temperature FILE",
        "none",
        decides=ROWS,
        later=True,
    ),
    Option("precision", "scorer", "engine", one_of("float32", "tf32", "bfloat16"), "float32", "of gradients"),
)
#: What runs must share for their scores to mean the same, besides the network.
COMPARABLE = tuple(option.key for option in SCORER if option.decides == MEANING)

#: What is fitted on training data: the plan of a run has the fingerprint of each, where its scores need it.
FITTED = ("posterior", "statistics")


def comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of :data:`COMPARABLE` that a stored configuration has, or that it means where it has none."""
    return {option.key: option.held(config) for option in SCORER if option.key in COMPARABLE}


def check_values(values: Mapping[str, Any]) -> None:
    """Refuse a setting of the scorer that is not of its kind; text is no number here.

    Raises:
        UsageError: there is one.
    """
    for option in SCORER:
        if option.key in values:
            given = values[option.key]
            try:
                sound = (given is None and option.default is None) or option.kind(given) == given
            except WrongValue:
                sound = False
            if not sound:
                shown = option.name.replace("-", " ")
                raise UsageError(f"{shown} {given!r}: must be {option.kind.text}")
