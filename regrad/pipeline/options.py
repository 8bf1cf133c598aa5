"""The options of ``regrad score``: one table for flags, configuration file and what belongs to the configuration.

Read by every command that scores before anything heavy is imported, so that a wrong flag is told at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from regrad import storage
from regrad.cli import MOST_USED, Parser, nearest
from regrad.errors import UsageError
from regrad.pipeline.plan import DEFAULT_UNIT_ROWS
from regrad.reading.images import DEFAULT_MAX_PIXELS
from regrad.settings.kinds import (
    ALLOWANCE,
    AT_LEAST_1,
    MEMORY,
    NAMES,
    NUMBERS,
    SIZE,
    SWITCH,
    TEMPERATURE,
    TEXT,
    WrongValue,
    number,
    one_of,
)
from regrad.settings.option import NOTHING, Option
from regrad.settings.places import NO_CLUSTER
from regrad.settings.scoring import SCORER

_OWN = "the model's own"
OPTIONS = (
    Option(
        "model",
        "model",
        "model",
        TEXT,
        None,
        "torchvision:NAME[@WEIGHTS], timm:NAME or package.module:factory",
        "",
        "SPEC",
    ),
    Option("weights", "model", "model", TEXT, None, "safetensors, or a state dict, for the model", _OWN, "URI"),
    Option("image-size", "model", "model", SIZE, None, "side of the square the model sees, or HEIGHTxWIDTH", _OWN),
    Option("channels", "model", "model", AT_LEAST_1, None, "1 (grey), 3 (RGB) or 4", f"{_OWN}, or 3", "1|3|4"),
    Option(
        "mean", "model", "model", NUMBERS, None, "of the pixels in [0, 1], for all channels or each: 0.5,0.5,0.5", _OWN
    ),
    Option("std", "model", "model", NUMBERS, None, "deviation of the pixels, like --mean", _OWN),
    Option("interpolation", "model", "model", TEXT, None, "resizes by bilinear, bicubic, lanczos, nearest, box", _OWN),
    Option(
        "scaled-jpeg",
        "model",
        "model",
        SWITCH,
        False,
        "decode JPEGs of eight times the size needed, or more, at a part of theirs: faster, and other pixels",
        later=True,
    ),
    Option(
        "transform",
        "model",
        "model",
        TEXT,
        None,
        "applied to every [0, 1] image (to invert drawings, say)",
        "none",
        "MODULE:FUNCTION",
    ),
    Option(
        "outputs",
        "model",
        "model",
        one_of("logits", "probabilities", "log-probabilities"),
        None,
        "what the network returns",
        "logits; probabilities are refused",
    ),
    Option(
        "temperature",
        "model",
        "model",
        TEMPERATURE,
        1.0,
        "logits are divided by it: above 1 the network is less sure; FILE.json of `regrad calibrate` has one",
    ),
    *SCORER,
    Option("score-module", "plugin", "scores", NAMES, [], "comma-separated modules that define scores of your own"),
    Option(
        "fit-data",
        "fit",
        "scores",
        NAMES,
        [],
        "comma-separated labelled training shards, for laplace, knn, vim, mahalanobis, ...",
        metavar="INPUTS",
    ),
    Option("fit-limit", "fit", "scores", AT_LEAST_1, None, "the first so many training images only", "all"),
    Option(
        "fit-structure",
        "fit",
        "scores",
        one_of("last", "all"),
        "last",
        "last: Kronecker-factored last layer; all: diagonal, for small networks",
    ),
    Option(
        "memory-budget",
        "run",
        "engine",
        MEMORY,
        None,
        "of an engine, such as 4GiB",
        "1GiB, or half of the GPU's free memory",
    ),
    Option("batch-size", "run", "engine", AT_LEAST_1, 64, "images handed to the model at a time"),
    Option(
        "image-column",
        "read",
        "input",
        TEXT,
        None,
        "Parquet column or WebDataset extension that holds the images",
        "image, or the only one of images",
        "NAME",
    ),
    Option(
        "label-column",
        "read",
        "input",
        TEXT,
        None,
        "Parquet column, WebDataset extension or JSON field of the labels",
        "label, or cls",
        "NAME",
    ),
    Option(
        "id-column",
        "read",
        "input",
        TEXT,
        None,
        "the same for the ids; `row` numbers the rows of Parquet",
        "id, or the image's own key or path",
        "NAME",
    ),
    Option("max-pixels", "read", "input", AT_LEAST_1, DEFAULT_MAX_PIXELS, "larger images are quarantined undecoded"),
    Option(
        "unit-rows",
        "read",
        "input",
        AT_LEAST_1,
        DEFAULT_UNIT_ROWS,
        "rows in a unit of work; a small tar is one unit",
    ),
    Option("limit", "run", "input", AT_LEAST_1, None, "score the first so many images only", "all"),
    Option(
        "output", "run", "run", TEXT, None, "folder or prefix for scores, quarantine, ledger and run.json", "", "URI"
    ),
    Option(
        "max-quarantined", "run", "run", ALLOWANCE, "0", "a count or a share such as 1%; beyond it the exit code is 4"
    ),
    Option("replace", "run", "run", SWITCH, False, "score anew when the output holds another model or configuration"),
    Option("rescan", "run", "run", SWITCH, False, "score sources anew whose changes cannot be noticed"),
    Option("dry-run", "run", "run", SWITCH, False, "show the plan and an estimate, and score nothing"),
    Option("verbose", "run", "run", SWITCH, False, "show tracebacks and Ray's own messages"),
    Option(
        "ray-address",
        "run",
        "cluster",
        TEXT,
        None,
        "the cluster to run on; `local`: Ray on this machine; `none`: no Ray",
        "$RAY_ADDRESS, or this machine, without Ray where that is sooner",
        "ADDRESS",
    ),
    Option(
        "num-workers", "run", "cluster", AT_LEAST_1, None, "processes that score", "one per GPU, or one per four cores"
    ),
    Option(
        "gpus-per-worker", "run", "cluster", number(least=0), None, "may be a fraction", "1 where there are GPUs, or 0"
    ),
    Option(
        "cpus-per-worker",
        "run",
        "cluster",
        AT_LEAST_1,
        None,
        "to read, decode and score with",
        "what there is, shared out",
    ),
    Option(
        "decode-workers",
        "run",
        "cluster",
        AT_LEAST_1,
        None,
        "processes of one CPU each, on any node, that decode for those that score",
        "none: each decodes for itself",
    ),
)
REQUIRED = ("model", "output")
FIRST = ("model", "weights", "output", "scores", "dry-run")  # what most runs are typed with
GROUPS = ("input", "model", "scores", "engine", "run", "cluster")
USAGE = "INPUT ... --model SPEC --output URI [--FLAG ...]"


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

    def deciding(self, *levels: str) -> dict[Option, Any]:
        """Option -> value of those that decide something of the rows, of one of ``levels`` if any are given."""
        return {
            option: self.values[option.key]
            for option in OPTIONS
            if option.decides != NOTHING and (not levels or option.decides in levels)
        }

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
    if options.ray_address == NO_CLUSTER:
        for name in ("num-workers", "cpus-per-worker", "gpus-per-worker", "decode-workers"):
            if getattr(options, name.replace("-", "_")) is not None:
                parser.error(f"--{name} with --ray-address {NO_CLUSTER}: without Ray there are no workers")
    if options.rescan and options.limit is not None:
        parser.error("--rescan with --limit would forget what lies behind the limit: name the inputs to scan instead")
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
    default = "" if option.kind is SWITCH else _default(option)
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
    if option.kind is SWITCH:
        return {"action": "store_true"}
    shown = option.metavar or option.kind.metavar or option.key.upper()
    repeated = {"action": "extend", "nargs": "+"} if option.repeat else {}
    return {"metavar": shown, "choices": option.kind.choices or None} | repeated


def _convert(option: Option, value: Any, origin: str | None) -> Any:
    if value is None:
        return option.default
    where = f"{storage.mask(origin)}: {option.name}" if origin else f"--{option.name}"
    try:
        return option.kind(value)
    except WrongValue as error:
        choices = option.kind.choices
        hint = nearest(str(value), choices) if choices else f"; it is: {option.help}"
        raise UsageError(f"{where} {value!r}: must be {option.kind.text}{hint}") from error


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
