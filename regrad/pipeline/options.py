"""The options of ``regrad score``: one table for flags, configuration file and what belongs to the configuration.

Read by every command that scores before anything heavy is imported, so that a wrong flag is told at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from regrad import storage
from regrad.cli import MOST_USED, Parser, nearest
from regrad.errors import UsageError
from regrad.pipeline.plan import DEFAULT_UNIT_ROWS
from regrad.reading.images import DEFAULT_MAX_PIXELS
from regrad.settings.kinds import count, memory, names, numbers, share, size, switch, whole


@dataclass(frozen=True)
class Option:
    """One setting.

    Attributes:
        role: who takes it: ``model`` (Classifier.load), ``scorer`` (Scorer), ``plugin`` (the registry of scores),
            ``fit`` (the posterior of ``laplace``), ``read`` (how rows are read and cut) or ``run`` (how the work is
            done). All but the last make the configuration that an output holds one of. Jobs that score as one of
            their steps have options of their own, of the role ``job``.
        group: where ``--help`` shows it.
        unset: what a default of None stands for, in words.
        metavar: what stands for the value; None: as :data:`_METAVARS` has it for the kind.
        choices: the values there are, where they can be told.
        repeat: whether the flag takes several values and may be given again; then ``kind`` takes a list.
    """

    name: str
    role: str
    group: str
    kind: Callable[[Any], Any]
    default: Any
    help: str
    unset: str = ""
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    repeat: bool = False

    @property
    def key(self) -> str:
        """``name`` as a Python name: the key in ``--config`` and in ``run.json``."""
        return self.name.replace("-", "_")


_OWN = "the model's own"
OPTIONS = (
    Option(
        "model",
        "model",
        "model",
        str,
        None,
        "torchvision:NAME[@WEIGHTS], timm:NAME or package.module:factory",
        "",
        "SPEC",
    ),
    Option("weights", "model", "model", str, None, "safetensors, or a state dict, for the model", _OWN, "URI"),
    Option("image-size", "model", "model", size, None, "side of the square the model sees, or HEIGHTxWIDTH", _OWN),
    Option("channels", "model", "model", count, None, "1 (grey), 3 (RGB) or 4", f"{_OWN}, or 3", "1|3|4"),
    Option(
        "mean", "model", "model", numbers, None, "of the pixels in [0, 1], for all channels or each: 0.5,0.5,0.5", _OWN
    ),
    Option("std", "model", "model", numbers, None, "deviation of the pixels, like --mean", _OWN),
    Option(
        "transform",
        "model",
        "model",
        str,
        None,
        "applied to every [0, 1] image (to invert drawings, say)",
        "none",
        "MODULE:FUNCTION",
    ),
    Option(
        "outputs",
        "model",
        "model",
        str,
        None,
        "what the network returns",
        "logits; probabilities are refused",
        choices=("logits", "probabilities", "log-probabilities"),
    ),
    Option("temperature", "model", "model", float, 1.0, "logits are divided by it: above 1 the network is less sure"),
    Option("scores", "scorer", "scores", names, ["regrad"], "comma-separated; --list-scores shows them"),
    Option("score-module", "plugin", "scores", names, [], "comma-separated modules that define scores of your own"),
    Option("sigma", "scorer", "scores", float, 0.02, "deviation of the smoothing noise"),
    Option("samples", "scorer", "scores", whole, 10, "noisy copies of every image; 0 turns smoothing off"),
    Option(
        "depth-decay",
        "scorer",
        "scores",
        float,
        0.3,
        "lambda, how fast layers lose weight with distance; inf: the last alone",
    ),
    Option("seed", "scorer", "scores", whole, 0, "of the noise"),
    Option(
        "noise-space",
        "scorer",
        "scores",
        str,
        "normalized",
        "normalized: what the network receives; pixel: [0, 1]",
        choices=("normalized", "pixel"),
    ),
    Option(
        "layers",
        "scorer",
        "scores",
        str,
        "modules",
        "what a layer is: a module, or a stage (top-level child)",
        choices=("modules", "stages"),
    ),
    Option(
        "draws",
        "scorer",
        "scores",
        count,
        10,
        "perturbed predictions of perturb_theta, mc_aa, inserted_dropout and laplace",
    ),
    Option("theta-sigma", "scorer", "scores", float, 1e-3, "deviation of every parameter for perturb_theta"),
    Option("dropout-rate", "scorer", "scores", float, 0.1, "of inserted_dropout"),
    Option(
        "dropout-at",
        "scorer",
        "scores",
        str,
        "all",
        "inserted_dropout's places: all layers but the first, or the last",
        choices=("all", "last"),
    ),
    Option(
        "fit-data",
        "fit",
        "scores",
        names,
        [],
        "comma-separated labelled training shards, for laplace; held in memory",
        metavar="INPUTS",
    ),
    Option("fit-limit", "fit", "scores", count, None, "the first so many training images only", "all"),
    Option(
        "fit-structure",
        "fit",
        "scores",
        str,
        "last",
        "last: Kronecker-factored last layer; all: diagonal, for small networks",
        choices=("last", "all"),
    ),
    Option(
        "engine",
        "scorer",
        "engine",
        str,
        "auto",
        "how gradients are computed; reference: in float64, slow, for checks",
        choices=("auto", "exact", "sketch", "reference"),
    ),
    Option("tolerance", "scorer", "engine", float, 2e-3, "share of the squared gradient that may be left out upstream"),
    Option("directions", "scorer", "engine", count, 16, "random directions that the sketch engine draws"),
    Option(
        "standard-errors",
        "scorer",
        "engine",
        switch,
        False,
        "add SCORE_se, what the sketch's directions leave uncertain",
    ),
    Option("precision", "scorer", "engine", str, "float32", "of gradients", choices=("float32", "tf32", "bfloat16")),
    Option(
        "memory-budget",
        "run",
        "engine",
        memory,
        None,
        "of an engine, such as 4GiB",
        "1GiB, or half of the GPU's free memory",
    ),
    Option("batch-size", "run", "engine", count, 64, "images handed to the model at a time"),
    Option(
        "image-column",
        "read",
        "input",
        str,
        None,
        "Parquet column or WebDataset extension that holds the images",
        "image, or the only one of images",
        "NAME",
    ),
    Option(
        "label-column",
        "read",
        "input",
        str,
        None,
        "Parquet column, WebDataset extension or JSON field of the labels",
        "label, or cls",
        "NAME",
    ),
    Option(
        "id-column",
        "read",
        "input",
        str,
        None,
        "the same for the ids; `row` numbers the rows of Parquet",
        "id, or the image's own key or path",
        "NAME",
    ),
    Option("max-pixels", "read", "input", count, DEFAULT_MAX_PIXELS, "larger images are quarantined undecoded"),
    Option("unit-rows", "read", "input", count, DEFAULT_UNIT_ROWS, "rows in a unit of work; a tar is always one unit"),
    Option("limit", "run", "input", count, None, "score the first so many images only", "all"),
    Option(
        "output", "run", "run", str, None, "folder or prefix for scores, quarantine, ledger and run.json", "", "URI"
    ),
    Option("max-quarantined", "run", "run", share, "0", "a count or a share such as 1%; beyond it the exit code is 4"),
    Option("replace", "run", "run", switch, False, "score anew when the output holds another model or configuration"),
    Option("dry-run", "run", "run", switch, False, "show the plan and an estimate, and score nothing"),
    Option("verbose", "run", "run", switch, False, "show tracebacks and Ray's own messages"),
    Option(
        "ray-address", "run", "cluster", str, None, "the cluster to run on", "$RAY_ADDRESS, or this machine", "ADDRESS"
    ),
    Option("num-workers", "run", "cluster", count, None, "processes that score", "one per GPU, or one per four cores"),
    Option("gpus-per-worker", "run", "cluster", float, None, "may be a fraction", "1 where there are GPUs, or 0"),
    Option(
        "cpus-per-worker", "run", "cluster", count, None, "to read, decode and score with", "what there is, shared out"
    ),
)
CONFIGURATION = ("model", "scorer", "plugin", "fit", "read")
REQUIRED = ("model", "output")
FIRST = ("model", "weights", "output", "scores", "dry-run")  # what most runs are typed with
GROUPS = ("input", "model", "scores", "engine", "run", "cluster")
USAGE = "INPUT ... --model SPEC --output URI [--FLAG ...]"
_METAVARS = {
    count: "N",
    whole: "N",
    float: "X",
    names: "NAMES",
    numbers: "X[,X,X]",
    size: "PIXELS",
    memory: "SIZE",
    share: "N|N%",
}


@dataclass(frozen=True)
class Options:
    """The parsed settings, and where each came from counts no more."""

    inputs: list[str]
    values: dict[str, Any]
    list_scores: bool = False

    def __getattr__(self, name: str) -> Any:
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(name) from None

    def of(self, *roles: str) -> dict[str, Any]:
        """Key -> value of the options with one of ``roles``."""
        return {option.key: self.values[option.key] for option in OPTIONS if option.role in roles}


def parse(
    argv: Sequence[str] | None,
    command: str,
    description: str | None,
    more: Sequence[Option] = (),
    first: Sequence[str] = FIRST,
) -> Options:
    """The options from flags, then ``--config FILE.yaml``, then defaults.

    Args:
        command, description, more, first: see :func:`parser_of`.

    Raises:
        UsageError: an unknown flag or key, a value of the wrong kind, or something required is missing.
    """
    parser = parser_of(command, description, more, first)
    table = {option.key: option for option in (*OPTIONS, *more)}
    given = vars(parser.parse_args(argv))
    config, list_scores = given.pop("config"), given.pop("list_scores")
    file = _read_config(config, table) if config else {}
    inputs = given.pop("inputs") or file.pop("inputs", [])
    file.pop("inputs", None)
    values = {option.key: option.default for option in table.values()}
    for origin, settings in ((config, file), (None, given)):
        values |= {key: _convert(table[key], value, origin) for key, value in settings.items()}
    options = Options([inputs] if isinstance(inputs, str) else list(inputs), values, list_scores)
    if not list_scores:
        missing = ["INPUT"] * (not options.inputs) + [f"--{key}" for key in REQUIRED if not values[key]]
        if missing:
            parser.error(f"{', '.join(missing)} missing")
    return options


def parser_of(
    command: str, description: str | None, more: Sequence[Option] = (), first: Sequence[str] = FIRST
) -> Parser:
    """The parser of a command that scores.

    Args:
        command: its name.
        description: what ``--help`` says before the flags.
        more: options of the command's own, beside those of scoring.
        first: those that are used most.
    """
    parser = Parser(command, description, USAGE)
    table = {option.name: option for option in (*OPTIONS, *more)}
    titles = list(dict.fromkeys([*(option.group for option in more), *GROUPS]))
    groups = dict(zip([MOST_USED, *titles], parser.groups(*titles), strict=True))
    groups[MOST_USED].add_argument(
        "inputs", nargs="*", metavar="INPUT", help="tars, Parquet files, folders, globs; any fsspec URI"
    )
    for name in dict.fromkeys([*first, *table]):
        option = table[name]
        groups[MOST_USED if name in first else option.group].add_argument(
            f"--{name}", default=argparse.SUPPRESS, help=_help(option), **_action(option)
        )
    groups["scores"].add_argument("--list-scores", action="store_true", help="show the scores there are, and end")
    groups["run"].add_argument("--config", metavar="FILE.yaml", help="the same names as keys; flags go before it")
    groups["run"].add_argument("-h", "--help", action="help", help="show this, and end")
    return parser


def _help(option: Option) -> str:
    """What it is, and its default."""
    default = "" if option.kind is switch else _default(option)
    return f"{option.help} (default: {default})".replace("%", "%%") if default else option.help.replace("%", "%%")


def _default(option: Option) -> str:
    """As people would say it."""
    match option.default:
        case None:
            return option.unset
        case list(several):
            return ",".join(several) or "none"
        case float(number):
            return f"{number:g}"
        case int(number):
            return f"{number:,}"
    return str(option.default)


def _action(option: Option) -> dict[str, Any]:
    """How argparse takes the flag."""
    if option.kind is switch:
        return {"action": "store_true"}
    shown = "|".join(option.choices) or option.metavar or _METAVARS.get(option.kind) or option.key.upper()
    repeated = {"action": "extend", "nargs": "+"} if option.repeat else {}
    return {"metavar": shown, "choices": option.choices or None} | repeated


def _convert(option: Option, value: Any, origin: str | None) -> Any:
    if value is None:
        return option.default
    where = f"{storage.mask(origin)}: {option.name}" if origin else f"--{option.name}"
    if option.choices and value not in option.choices:
        meant = nearest(str(value), option.choices)
        raise UsageError(f"{where} {value!r}: one of {', '.join(option.choices)}{meant}")
    try:
        return option.kind(value)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{where} {value!r}: not understood; it is: {option.help}") from error


def _read_config(uri: str, table: Mapping[str, Option]) -> dict[str, Any]:
    try:
        content = yaml.safe_load(storage.read_bytes(uri)) or {}
    except FileNotFoundError as error:
        raise UsageError(f"--config {error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {storage.mask(uri)}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UsageError(f"--config {storage.mask(uri)}: must hold `name: value` lines")
    settings = {str(key).replace("-", "_"): value for key, value in content.items()}
    unknown = [str(key) for key in content if str(key).replace("-", "_") not in {*table, "inputs"}]
    if unknown:
        known = sorted(option.name for option in table.values())
        wrong = ", ".join(name + nearest(name.replace("_", "-"), known) for name in unknown)
        raise UsageError(f"--config {storage.mask(uri)}: unknown {wrong}; the names are inputs, {', '.join(known)}")
    return settings
