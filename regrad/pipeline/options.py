"""The options of ``jobs/score.py``: one table for flags, configuration file and what belongs to the configuration."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from regrad import storage
from regrad.cli import Parser
from regrad.errors import UsageError
from regrad.pipeline.plan import DEFAULT_UNIT_ROWS
from regrad.reading.images import DEFAULT_MAX_PIXELS


@dataclass(frozen=True)
class Option:
    """One setting.

    Attributes:
        role: who takes it: ``model`` (Classifier.load), ``scorer`` (Scorer), ``plugin`` (the registry of scores),
            ``fit`` (the posterior of ``laplace``), ``read`` (how rows are read and cut) or ``run`` (how the work is
            done). All but the last make the configuration that an output holds one of. Jobs that score as one of
            their steps have options of their own, of the role ``job``.
        repeat: whether the flag takes several values and may be given again; then ``kind`` takes a list.
    """

    name: str
    role: str
    kind: Callable[[Any], Any]
    default: Any
    help: str
    repeat: bool = False

    @property
    def key(self) -> str:
        """As a Python name."""
        return self.name.replace("-", "_")


def names(value: Any) -> list[str]:
    """``a,b`` or a list, as a list without blanks.

    >>> names("regrad, entropy")
    ['regrad', 'entropy']
    """
    parts = value.split(",") if isinstance(value, str) else value
    return [str(part).strip() for part in parts if str(part).strip()]


def numbers(value: Any) -> float | list[float]:
    """One number, or several separated by commas."""
    found = [float(part) for part in (value.split(",") if isinstance(value, str) else _as_list(value))]
    return found[0] if len(found) == 1 else found


def size(value: Any) -> int | list[int]:
    """``224``, or ``HEIGHTxWIDTH``.

    >>> size("224"), size("32x48")
    (224, [32, 48])
    """
    found = [count(part) for part in (value.lower().split("x") if isinstance(value, str) else _as_list(value))]
    if len(found) > 2:
        raise ValueError
    return found[0] if len(found) == 1 else found


def count(value: Any) -> int:
    """A whole number of at least 1."""
    number = int(value)
    if number < 1 or isinstance(value, float | bool):
        raise ValueError
    return number


def whole(value: Any) -> int:
    """A whole number."""
    if isinstance(value, float | bool):
        raise ValueError
    return int(value)


def memory(value: Any) -> int:
    """Bytes, or a number with a unit.

    >>> memory("4GiB"), memory("500MB"), memory(4096)
    (4294967296, 500000000, 4096)
    """
    match = re.fullmatch(r"([\d.]+)\s*([kmgt]?)(i?)b?", str(value).strip().lower())
    if match is None:
        raise ValueError
    power = " kmgt".index(match[2] or " ")
    return count(int(float(match[1]) * (1024 if match[3] else 1000) ** power))


def share(value: Any) -> str:
    """A count, or a share such as ``1%``.

    >>> share("0.5%"), share(3)
    ('0.5%', '3')
    """
    text = str(value).strip()
    if text.endswith("%"):
        if not 0 <= float(text[:-1]) <= 100:
            raise ValueError
    elif int(text) < 0:
        raise ValueError
    return text


def exceeds(quarantined: int, rows: int, limit: str) -> bool:
    """Whether ``quarantined`` of ``rows`` are more than ``limit`` (see :func:`share`) allows.

    >>> exceeds(1, 100, "1%"), exceeds(2, 100, "1%"), exceeds(1, 100, "0")
    (False, True, True)
    """
    allowed = rows * float(limit[:-1]) / 100 if limit.endswith("%") else int(limit)
    return quarantined > allowed


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def switch(value: Any) -> bool:
    """Of a flag without a value: true or false."""
    if not isinstance(value, bool):
        raise ValueError
    return value


OPTIONS = (
    Option("model", "model", str, None, "torchvision:NAME[@WEIGHTS], timm:NAME or package.module:factory"),
    Option("weights", "model", str, None, "URI of safetensors, or of a state dict, for the model"),
    Option("image-size", "model", size, None, "side of the square the model sees, or HEIGHTxWIDTH"),
    Option("channels", "model", count, None, "1 (grey), 3 (RGB) or 4"),
    Option("mean", "model", numbers, None, "of the pixels in [0, 1]: one number, or one per channel: 0.5,0.5,0.5"),
    Option("std", "model", numbers, None, "deviation of the pixels, like --mean"),
    Option("transform", "model", str, None, "module:function applied to every [0, 1] image (to invert drawings, say)"),
    Option("temperature", "model", float, 1.0, "logits are divided by it: above 1 the network is less sure"),
    Option("scores", "scorer", names, ["regrad"], "comma-separated; --list-scores shows them"),
    Option("sigma", "scorer", float, 0.02, "deviation of the smoothing noise"),
    Option("samples", "scorer", whole, 10, "noisy copies of every image; 0 turns smoothing off"),
    Option("depth-decay", "scorer", float, 0.3, "lambda, how fast layers lose weight with distance; inf: last alone"),
    Option("seed", "scorer", whole, 0, "of the noise"),
    Option("engine", "scorer", str, "auto", "auto, exact, sketch, or reference (float64, slow, for checks)"),
    Option("tolerance", "scorer", float, 2e-3, "share of the squared gradient that may be left out upstream"),
    Option("noise-space", "scorer", str, "normalized", "normalized: what the network receives; pixel: [0, 1]"),
    Option("layers", "scorer", str, "modules", "what a layer is: modules, or stages (top-level children)"),
    Option("directions", "scorer", count, 16, "random directions that the sketch engine draws"),
    Option("draws", "scorer", count, 10, "perturbed predictions of perturb_theta, mc_aa, inserted_dropout and laplace"),
    Option("theta-sigma", "scorer", float, 1e-3, "deviation of every parameter for perturb_theta"),
    Option("dropout-rate", "scorer", float, 0.1, "of inserted_dropout"),
    Option("dropout-at", "scorer", str, "all", "inserted_dropout's places: all layers but the first, or the last"),
    Option("score-module", "plugin", names, [], "comma-separated modules that define scores of your own"),
    Option("fit-data", "fit", names, [], "comma-separated labelled training shards, for laplace; held in memory"),
    Option("fit-limit", "fit", count, None, "the first so many training images only"),
    Option(
        "fit-structure", "fit", str, "last", "last: Kronecker-factored last layer; all: diagonal, for small networks"
    ),
    Option("standard-errors", "scorer", switch, False, "add SCORE_se, what the sketch's directions leave uncertain"),
    Option("precision", "scorer", str, "float32", "of gradients: float32, tf32 or bfloat16"),
    Option("image-column", "read", str, None, "Parquet column or WebDataset extension that holds the images"),
    Option("label-column", "read", str, None, "Parquet column, WebDataset extension or JSON field of the labels"),
    Option("id-column", "read", str, None, "the same for the ids; `row` numbers the rows of Parquet"),
    Option("max-pixels", "read", count, DEFAULT_MAX_PIXELS, "larger images are quarantined undecoded"),
    Option("unit-rows", "read", count, DEFAULT_UNIT_ROWS, "rows in a unit of work; a tar is always one unit"),
    Option("output", "run", str, None, "folder or URI prefix for scores, quarantine, ledger and run.json"),
    Option("max-quarantined", "run", share, "0", "a count or a share such as 1%%; beyond it the exit code is 4"),
    Option("num-workers", "run", count, None, "scoring processes; default: one per GPU, or one per four cores"),
    Option("gpus-per-worker", "run", float, None, "may be a fraction; default: 1 where there are GPUs, else 0"),
    Option("cpus-per-worker", "run", count, None, "to read, decode and score with; default: what there is, shared out"),
    Option(
        "memory-budget", "run", memory, None, "of an engine, such as 4GiB; default: 1GiB, or half of the GPU's free"
    ),
    Option("batch-size", "run", count, 64, "images handed to the model at a time"),
    Option("limit", "run", count, None, "score the first LIMIT images only"),
    Option("ray-address", "run", str, None, "cluster to run on; default: $RAY_ADDRESS, else this machine"),
    Option("replace", "run", switch, False, "score anew when the output holds another model or configuration"),
    Option("dry-run", "run", switch, False, "show the plan and an estimate, and score nothing"),
    Option("verbose", "run", switch, False, "show tracebacks and Ray's own messages"),
)
CONFIGURATION = ("model", "scorer", "plugin", "fit", "read")
REQUIRED = ("model", "output")


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
        """The settings with these roles."""
        return {option.key: self.values[option.key] for option in OPTIONS if option.role in roles}


def parse(argv: Sequence[str] | None, prog: str, description: str | None, more: Sequence[Option] = ()) -> Options:
    """The options from flags, then ``--config FILE.yaml``, then defaults.

    Args:
        more: options of the job's own, beside those of scoring.

    Raises:
        UsageError: an unknown flag or key, a value of the wrong kind, or something required is missing.
    """
    parser = Parser(prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "inputs", nargs="*", metavar="INPUT", help="tars, Parquet files, folders, globs; any fsspec URI"
    )
    table = {option.key: option for option in (*OPTIONS, *more)}
    for option in table.values():
        parser.add_argument(f"--{option.name}", default=argparse.SUPPRESS, help=_help(option), **_action(option))
    parser.add_argument("--config", metavar="FILE.yaml", help="the same names as keys; flags go before it")
    parser.add_argument("--list-scores", action="store_true", help="show the scores there are, and end")
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
            raise UsageError(f"{', '.join(missing)} missing; {prog} --help lists the options")
    return options


def _help(option: Option) -> str:
    if option.default is None or option.kind is switch:
        return option.help
    default = ",".join(option.default) or "none" if isinstance(option.default, list) else option.default
    return f"{option.help} (default {str(default).replace('%', '%%')})"


def _action(option: Option) -> dict[str, Any]:
    """How argparse takes the flag."""
    if option.kind is switch:
        return {"action": "store_true"}
    return {"metavar": option.key.upper()} | ({"action": "extend", "nargs": "+"} if option.repeat else {})


def _convert(option: Option, value: Any, origin: str | None) -> Any:
    if value is None:
        return option.default
    try:
        return option.kind(value)
    except (ValueError, TypeError) as error:
        where = f"{storage.mask(origin)}: {option.name}" if origin else f"--{option.name}"
        raise UsageError(f"{where} {value!r}: not understood; it is: {option.help.replace('%%', '%')}") from error


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
        known = ", ".join(sorted(option.name for option in table.values()))
        raise UsageError(f"--config {storage.mask(uri)}: unknown {', '.join(unknown)}; the names are inputs, {known}")
    return settings
