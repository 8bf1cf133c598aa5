"""``OUT/run.json``: what ran, with which configuration, and how it went. An output holds one configuration."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any

from regrad import __version__, storage, table
from regrad.errors import UsageError
from regrad.formatting import now
from regrad.ledger import commit, contents
from regrad.pipeline.options import OPTIONS, Options
from regrad.reading.inputs import Listing
from regrad.reading.naming.classes import in_short
from regrad.settings.option import MEANING, ROWS, VALUE
from regrad.settings.scoring import FITTED

COUNTS = ("rows_in", "rows_scored", "rows_quarantined", "labelled", "correct", "labels_outside")
_MODEL = {option.key for option in OPTIONS if option.role == "model"}  # the fingerprint stands for these
_PACKAGES = ("torch", "torchvision", "timm", "ray", "pyarrow", "pillow", "numpy")


def configuration(options: Options) -> dict[str, Any]:
    """All settings that the rows of an output depend on, as JSON keeps them."""
    decided = options.deciding().items()
    return {option.key: _plain(value) for option, value in decided if not option.later or value != option.default}


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no infinity
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return storage.mask(value) if isinstance(value, str) else value


def existing(output: str) -> dict[str, Any] | None:
    """The ``run.json`` that is at ``output`` already, or None for a new output.

    Raises:
        UsageError: it is of another schema version, or there are units without it.
    """
    if "run.json" in storage.list_files(output, ".json"):
        return table.read_run(output)
    if contents.committed(output):
        raise UsageError(
            f"{storage.mask(output)}: holds units but no run.json, so what made them is unknown; use another --output"
        )
    return None


def differences(
    run: Mapping[str, Any],
    options: Options,
    fingerprint: str,
    plan: Mapping[str, Any] | None = None,
    levels: Sequence[str] = (MEANING, VALUE, ROWS),
) -> list[str]:
    """How the configuration of ``run`` differs from the one asked for, one ``name old, now new`` each.

    Args:
        fingerprint: of the classifier.
        plan: with the fingerprints of what was fitted (:data:`regrad.settings.scoring.FITTED`), once there are any.
        levels: what must not differ, see :class:`regrad.settings.option.Option`.
    """
    values = {
        option: (option.held(run["config"]), _plain(value)) for option, value in options.deciding(*levels).items()
    }

    def told(model: bool) -> list[str]:
        return [
            f"{option.name} {_shown(held)}, now {_shown(wanted)}"
            for option, (held, wanted) in values.items()
            if held != wanted and (option.key in _MODEL) == model
        ]

    changes = told(model=False)
    if run["model"]["fingerprint"] != fingerprint:
        # The same network may be named in several ways: it is the fingerprint that decides, the names that explain.
        changes += told(model=True) or [
            f"the model's content (fingerprint {run['model']['fingerprint'][:12]}, now {fingerprint[:12]})"
        ]
    fitted = {name: (run["plan"].get(name), (plan or {}).get(name)) for name in FITTED}
    other = [f"{name} {held}, now {now}" for name, (held, now) in fitted.items() if now and held != now]
    if other and not changes:
        changes.append(f"what --fit-data holds ({'; '.join(other)})")
    return changes


def renamed_classes(run: Mapping[str, Any], names: Sequence[str] | None) -> list[str]:
    """How the names of the model's classes differ from those of ``run``, by which labels were read: one line or none.

    >>> renamed_classes({"model": {"class_names": ["cat", "dog"]}}, ["dog", "cat"])
    ["the model's class 0 is called cat, now dog"]
    >>> renamed_classes({"model": {"class_names": None}}, ["dog", "cat"])
    ["the model's classes have no names, now dog and cat"]
    """
    held, wanted = (list(known or ()) for known in (run["model"]["class_names"], names))
    if held == wanted:
        return []
    if len(held) != len(wanted):
        told = [in_short(known) if known else "no names" for known in (held, wanted)]
        return [f"the model's classes have {told[0]}, now {told[1]}"]
    place = next(place for place, (old, new) in enumerate(zip(held, wanted, strict=True)) if old != new)
    return [f"the model's class {place} is called {held[place]}, now {wanted[place]}"]


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def salt(fingerprint: str, config: Mapping[str, Any], plan: Mapping[str, Any]) -> str:
    """What a unit's key depends on besides its content: model, :func:`configuration`, the engine's choices, schema."""
    settings = {key: value for key, value in config.items() if key not in _MODEL}
    return json.dumps([table.ROWS_VERSION, fingerprint, settings, choices(plan)], sort_keys=True)


def choices(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What the engine chose that scores depend on: the rest of its plan explains."""
    chosen = {name: value for name, value in plan.items() if isinstance(value, int | str) and name != "why"}
    depths = {"depths": [each["first_layer"] for each in plan["depths"]["each"]]} if "depths" in plan else {}
    return chosen | depths


def versions() -> dict[str, str]:
    """Of Python and the packages that scores may depend on."""
    return dict(_installed())


@functools.cache  # what was imported stays, and each is looked for in every folder of the path
def _installed() -> dict[str, str]:
    installed = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def totals(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The sums over ledger records, their number as ``units``, and by reason what of their sources was no row."""
    sums: dict[str, Any] = {**dict.fromkeys(("units", *COUNTS), 0), "skipped": Counter()}
    for record in records:
        sums["units"] += 1
        for name in COUNTS:
            sums[name] += record[name]
        sums["skipped"] += Counter(record.get("skipped", {}))
    return sums


def seen(listing: Listing, counts: Mapping[str, Any]) -> dict[str, Any]:
    """What ``run.json`` says of its inputs: where labels come from, how many sources may change
    unnoticed, and all that is no row, be it a file or a member.

    ``counts`` has the latter. ``left_out`` stands for the names of the files.
    """
    by_name = sorted(listing.left_out.items())
    return {
        "labels": list(listing.notes),
        "unidentified": len(listing.unidentified),
        "skipped": listing.skipped + Counter(counts["skipped"]),
        "left_out": hashlib.sha256(repr(by_name).encode()).hexdigest(),
    }


def ledger_digest(keys: Iterable[str]) -> str:
    """Stands for the set of committed units: equal digests, equal totals."""
    return hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()


def held_totals(ledger: commit.Ledger, run: Mapping[str, Any] | None) -> dict[str, Any]:
    """The totals of the units of ``ledger``: from ``run.json`` where it is of the same units, else re-read."""
    keys = ledger.keys
    counts = (run or {}).get("counts", {})
    if keys and counts.get("ledger") == ledger_digest(keys):
        return {name: counts[name] for name in ("units", *COUNTS)} | {"skipped": Counter(counts.get("skipped", {}))}
    return totals(ledger.records(sorted(keys)))


def start(options: Options, model: dict[str, Any], plan: Mapping[str, Any]) -> dict[str, Any]:
    """The content of ``run.json`` while a run goes on."""
    return {
        "schema_version": table.SCHEMA_VERSION,
        "regrad_version": __version__,
        "status": "running",
        "exit_code": None,
        "started": now(),
        "inputs": [storage.mask(uri) for uri in options.inputs],
        "model": model,
        "config": configuration(options),
        "plan": dict(plan),
        "versions": versions(),
    }
