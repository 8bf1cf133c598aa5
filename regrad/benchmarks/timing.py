"""Times side by side: every round runs everything once, and ratios are taken within a round."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from regrad.benchmarks.cases import Case, copies_of, with_classes
from regrad.benchmarks.contenders import Contender, EngineRun, Run, forward
from regrad.gradients import cut
from regrad.network.probe import probe_images

ERROR_IMAGES = 4
SCALED = 4  # times the larger class count that is run: with more classes than that, costs are scaled


@dataclass
class Row:
    """One contender on one case.

    Attributes:
        ratio: median over rounds of its time an image over that of the N+1 plain forward passes.
        low, high: the smallest and the largest round's.
        scaled_from: the class counts that were run where all of them would take hours.
        peak_mb: memory above what was held before, at its own number of images.
        error: largest and median |S - S'| / S of REGrad's sum over classes, of ``ERROR_IMAGES`` images.
        cannot: why there is no number.

    A precision that the device lacks has an error and no ratio.
    """

    name: str
    does: str
    images: int
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    scaled_from: tuple[int, int] | None = None
    peak_mb: float | None = None
    error: dict[str, float] | None = None
    plan: dict[str, Any] | None = None
    cannot: str | None = None


@dataclass(frozen=True)
class _Entrant:
    contender: Contender
    classes: int
    run: Run
    images: int

    @property
    def timed(self) -> bool:
        return not (isinstance(self.run, EngineRun) and self.run.emulated)


def measure(
    case: Case,
    contenders: Sequence[Contender],
    rounds: int,
    device: torch.device,
    say: Callable[[str], None],
    errors: bool = True,
) -> dict[str, Any]:
    """All contenders on one case: ``describe``, seconds of a plain pass, and a :class:`Row` for each as a dict.

    ``errors`` compares our engines with autograd too, which costs as much as some images of the reference.
    """
    classifier = case.classifier()
    network = classifier.network.eval().to(device)
    copies = copies_of(case, classifier, device)
    probe = classifier.normalize(probe_images(cut.PROBES, classifier.channels, classifier.image_size)).to(device)
    plain = forward(network, probe, case.samples)
    rows, entrants = [], []
    for contender in contenders:
        say(f"{case.name}: building {contender.name}")
        row = Row(contender.name, contender.does, min(len(copies), contender.images or len(copies)))
        rows.append(row)
        few = (
            contender.classes if contender.classes and classifier.num_classes > SCALED * contender.classes[1] else None
        )
        row.scaled_from = few
        try:
            for classes in few or (classifier.num_classes,):
                smaller = with_classes(network, classes, probe[:1]).to(device) if few else network
                run = contender.make(smaller, probe, case.samples)
                run(copies[: row.images])  # warms up, and shows whether it can at all
                entrants.append(_Entrant(contender, classes, run, row.images))
                row.plan = run.passes.plan if isinstance(run, EngineRun) else None
        except Exception as error:
            row.cannot = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    plain(copies)
    times: list[dict[tuple[str, int], float]] = []
    seconds: list[float] = []
    for number in range(rounds):
        say(f"{case.name}: round {number + 1} of {rounds}")
        seconds.append(_time(plain, copies, device) / len(copies))
        times.append(
            {
                (item.contender.name, item.classes): _time(item.run, copies[: item.images], device) / item.images
                for item in entrants
                if item.timed
            }
        )
    for row in rows:
        own = [item for item in entrants if item.contender.name == row.name]
        if row.cannot is not None or not own:
            continue
        if own[-1].timed:
            _fill(row, times, seconds, classifier.num_classes)
        say(f"{case.name}: memory and error of {row.name}")
        _details(row, own[-1], copies, device, errors)
    return {
        "case": case.name,
        "describe": case.describe(classifier),
        "classes": classifier.num_classes,
        "samples": case.samples,
        "forward_seconds_per_image": statistics.median(seconds),
        "forward_peak_mb": peak(lambda: plain(copies), device),
        "rows": [asdict(row) for row in rows],
    }


def _fill(row: Row, times: list[dict[tuple[str, int], float]], seconds: list[float], classes: int) -> None:
    """Ratios of every round; from two class counts, those for all classes on the line through them."""
    ratios = []
    for measured, plain in zip(times, seconds, strict=True):
        own = sorted((count, value / plain) for (name, count), value in measured.items() if name == row.name)
        (few, at_few), (many, at_many) = own[0], own[-1]
        ratios.append(at_few if few == many else at_few + (at_many - at_few) / (many - few) * (classes - few))
    row.ratio, row.low, row.high = statistics.median(ratios), min(ratios), max(ratios)


def _details(row: Row, item: _Entrant, copies: torch.Tensor, device: torch.device, errors: bool) -> None:
    if item.timed:
        row.peak_mb = peak(lambda: item.run(copies[: item.images]), device)
    if errors and isinstance(item.run, EngineRun):
        error = item.run.error(copies[:ERROR_IMAGES])
        row.error = {"median": float(error.median()), "max": float(error.max())}


def _time(run: Run, copies: torch.Tensor, device: torch.device) -> float:
    gc.collect()
    started = time.perf_counter()
    run(copies)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def peak(run: Callable[[], Any], device: torch.device) -> float:
    """MB that ``run`` holds at most beyond what is held before: of the GPU, or of this process."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    highest, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.002):
            highest[0] = max(highest[0], _resident())

    _give_back()
    before = _resident()
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    run()
    ended.set()
    thread.join()
    return max(0, highest[0] - before) / 1e6


def _give_back() -> None:
    """Return freed memory to the system, where the C library can, so that it is seen when it is taken again."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _resident() -> int:
    """Bytes of this process that are in memory now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
