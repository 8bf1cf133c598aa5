"""The parts of the measurement: each a process, with its share of the time, whose results are written at once."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from regrad import storage
from regrad.benchmarks.gpu.bench import Bench
from regrad.experiments.apart import Ended, in_a_process

RESULTS = "gpu.json"
WHOLE = "whole"  # how a part ended that did all of its work in time
_LEAST_SECONDS = 10.0
_HERE = "regrad.benchmarks.gpu"


@dataclass(frozen=True)
class Measurement:
    """One part.

    Attributes:
        does: in words.
        share: of the minutes; what a part leaves over, those behind it get.
        function: of a :class:`Bench`, which gives what is found out piece by piece: MODULE:NAME. It is imported in the
            part's own process, where it may fail without the others.
    """

    does: str
    share: float
    function: str


PARTS: Mapping[str, Measurement] = {
    "machine": Measurement("what was measured on", 0.02, f"{_HERE}.machine:machine_found"),
    "train": Measurement("ResNet-18 trained on CIFAR-10", 0.24, f"{_HERE}.train:train"),
    "equality": Measurement("scores of the device beside those of the CPU", 0.15, f"{_HERE}.equality:compared"),
    "feeding": Measurement("from encoded bytes to scores", 0.08, f"{_HERE}.feeding:feeding"),
    "batches": Measurement("batch sizes and memory budgets", 0.15, f"{_HERE}.speed:batches"),
    "profiles": Measurement("what a batch's time goes into", 0.08, f"{_HERE}.profiling:profiles"),
    "engines": Measurement("time, memory and error of every engine and precision", 0.28, f"{_HERE}.speed:engines"),
}


def measure_all(
    bench: Bench, minutes: float, say: Callable[[str], None], parts: Mapping[str, Measurement] = PARTS
) -> dict[str, Any]:
    """Run every part, write :data:`RESULTS` into the folder after each piece, and return what it holds.

    A part that fails, or takes longer than its share and what others left, keeps its pieces and says so. What an
    earlier run in the folder has whole is not run again: the minutes are for the others.
    """
    end = time.monotonic() + 60 * minutes
    whole = {name: part for name, part in _earlier(bench).items() if part["ended"] == WHOLE}
    results: dict[str, Any] = {"tiny": bench.tiny, "parts": {}}
    shares = sum(part.share for name, part in parts.items() if name not in whole)
    for name, part in parts.items():
        if name in whole:
            results["parts"][name] = whole[name]
            bench = _with_weights(bench, whole[name])
            say(f"{name}: whole since {whole[name]['date']}")
            continue
        started = time.monotonic()
        seconds = max(_LEAST_SECONDS, (end - started) * part.share / shares)
        shares -= part.share
        say(f"{name}: {part.does}, at most {seconds:.0f} s")
        held: dict[str, Any] = {"does": part.does, "date": time.strftime("%Y-%m-%d"), "pieces": []}
        results["parts"][name] = held
        for piece in in_a_process(_attempted, (part, replace(bench, seconds=seconds)), seconds, "spawn"):
            if isinstance(piece, Ended):
                held["ended"] = _in_words(piece, held.pop("failed", None), seconds)
            elif "failed" in piece:
                held |= piece
            else:
                held["pieces"].append(piece)
            held["seconds"] = round(time.monotonic() - started, 1)
            _write(bench.folder, results)
        say(f"{name}: {held['ended']}, {len(held['pieces'])} results in {held['seconds']:.0f} s")
        bench = _with_weights(bench, held)
    return results


def _earlier(bench: Bench) -> dict[str, Any]:
    """The parts of a run of this form that left its results in the folder; none if there are none."""
    path = Path(bench.folder, RESULTS)
    held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    parts: dict[str, Any] = held["parts"] if held.get("tiny") == bench.tiny else {}
    return parts


def _with_weights(bench: Bench, part: Mapping[str, Any]) -> Bench:
    """``bench`` with the weights that the part has trained, if it has."""
    trained = part["pieces"][-1].get("weights") if part["pieces"] else None
    return replace(bench, weights=str(Path(bench.folder, trained))) if trained else bench


def _attempted(part: Measurement, bench: Bench) -> Iterator[dict[str, Any]]:
    try:
        module, _, name = part.function.partition(":")
        yield from getattr(importlib.import_module(module), name)(bench)
    except Exception as error:
        yield {"failed": storage.reason(error)}


def _in_words(ended: Ended, failed: str | None, seconds: float) -> str:
    if failed:
        return f"failed: {failed}"
    if ended.stopped:
        return f"stopped after {seconds:.0f} s"
    return f"failed: its process ended with {ended.code}" if ended.code else WHOLE


def _write(folder: str, results: dict[str, Any]) -> None:
    content = json.dumps(results, indent=1).encode()
    storage.write_atomically(storage.join(folder, RESULTS), content)
