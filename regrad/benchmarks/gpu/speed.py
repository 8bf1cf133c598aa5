"""(b), (e) Time, error and memory: every engine and precision over plain passes, and the whole scorer over batches."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from regrad import Scorer
from regrad.benchmarks.cases import Case
from regrad.benchmarks.contenders import Contender, engine, reference
from regrad.benchmarks.gpu.bench import Bench
from regrad.benchmarks.timing import measure, peak
from regrad.network.memory import out_of_memory
from regrad.network.probe import probe_images

NETWORKS = "regrad.benchmarks.gpu.networks"
CASES = (
    Case("ResNet-18, C = 10", f"{NETWORKS}:small_resnet18", 64),
    Case("ResNet-50, C = 1000", f"{NETWORKS}:plain_resnet50", 16),
    Case("ViT-B/16, C = 1000", f"{NETWORKS}:plain_vit_b_16", 16),
    Case("ResNet-18, C = 100", f"{NETWORKS}:small_resnet18_of_100", 64),
)
TINY_CASES = (
    Case("tiny ResNet", f"{NETWORKS}:tiny_resnet", 2, samples=1),
    Case("tiny transformer", f"{NETWORKS}:tiny_vit", 2, samples=1),
)
PRECISIONS = ("float32", "tf32", "bfloat16")
_EXACTLY = torch.float64
_ALIKE = None  # no power: these networks are not trained, so that every class is as probable as any
CONTENDERS = (
    *(
        Contender(
            f"exact, {each}", engine("exact", 2e-3, precision=each, against=_EXACTLY, power=_ALIKE), classes=(4, 28)
        )
        for each in PRECISIONS
    ),
    *(
        Contender(f"sketch 16, {each}", engine("sketch", 2e-3, 16, precision=each, against=_EXACTLY))
        for each in PRECISIONS
    ),
    Contender(
        "exact, tf32, classes at once",
        engine("exact", 2e-3, precision="tf32", against=_EXACTLY, planned=True, power=_ALIKE),
        classes=(16, 64),  # more than go at once where operations are large
    ),
    Contender("reference", reference, images=1, classes=(1, 3)),
)
COMPILED = (
    CONTENDERS[PRECISIONS.index("tf32")],
    Contender(
        "exact, tf32, compiled",
        engine("exact", 2e-3, precision="tf32", against=_EXACTLY, compiled=True, power=_ALIKE),
        "the same with torch.compile",
        classes=(4, 28),
    ),
)
ROUNDS = 3
BATCHES, BUDGETS = (16, 64, 256), (None, 2 << 30)
MOST_PIXELS = 64 * 3 * 224 * 224  # of a batch
MOST_CLASSES = 100  # with which the exact engine is measured as a whole, beside the sketch
_LEAST_SECONDS = 0.5  # of a measurement


def cases(bench: Bench) -> tuple[Case, ...]:
    """Those of the bench, the first with the weights that were trained."""
    first, *others = TINY_CASES if bench.tiny else CASES
    return (replace(first, weights=bench.weights), *others)


def engines(bench: Bench) -> Iterator[dict[str, Any]]:
    """What :func:`regrad.benchmarks.timing.measure` finds out about each case; errors against float64.

    Last comes the first case once more, with the network compiled, which may take all the time that is left; where it
    cannot be, its row says why. The tiny form goes without.
    """
    for case in cases(bench):
        found = _of_case(case, CONTENDERS, bench)
        reference_ = next(row for row in found["rows"] if row["name"] == "reference")
        if reference_["ratio"] is not None:
            found["reference_seconds_per_image"] = reference_["ratio"] * found["forward_seconds_per_image"]
        yield found
        gc.collect()
    if not bench.tiny:
        from torch._functorch import config  # with the compiler, which nothing else needs

        with config.patch(donated_buffer=False):  # a graph is differentiated once for every class
            yield _of_case(cases(bench)[0], COMPILED, bench)


def _of_case(case: Case, contenders: Sequence[Contender], bench: Bench) -> dict[str, Any]:
    return measure(case, contenders, 1 if bench.tiny else ROUNDS, torch.device(bench.device), lambda _: None)


def batches(bench: Bench) -> Iterator[dict[str, Any]]:
    """REGrad by each engine over sizes of the batch and memory budgets: images a second, peak beside planned memory."""
    device = torch.device(bench.device)
    sizes, budgets = ((2,), (None, 1 << 24)) if bench.tiny else (BATCHES, BUDGETS)
    for case in cases(bench):
        classifier = case.classifier()
        most = MOST_PIXELS // (classifier.channels * math.prod(classifier.image_size))
        images = probe_images(min(most, max(sizes)), classifier.channels, classifier.image_size)
        ids = [str(row) for row in range(len(images))]
        for name in ("exact", "sketch") if classifier.num_classes <= MOST_CLASSES else ("sketch",):
            for budget in budgets:
                scorer = Scorer(
                    classifier,
                    samples=case.samples,
                    engine=name,
                    precision="tf32",
                    memory_budget=budget,
                    device=device,
                )
                for size in (each for each in sizes if each <= most):
                    found = {"case": case.name, "engine": name, "budget": budget, "batch": size}
                    try:
                        found |= _measured(scorer, images[:size], ids[:size], device)
                    except RuntimeError as error:
                        if not out_of_memory(error):
                            raise
                        found["cannot"] = "out of memory"
                    yield found
                del scorer
                gc.collect()


def _measured(scorer: Scorer, images: torch.Tensor, ids: list[str], device: torch.device) -> dict[str, Any]:
    highest = peak(lambda: scorer(images, ids), device)  # which warms up, too
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < _LEAST_SECONDS:
        scorer(images, ids)  # whose result is on the host: nothing is under way any more
        count += len(images)
    seconds = time.perf_counter() - started
    return {
        "images_per_second": count / seconds,
        "peak_mb": highest,
        "planned_mb": scorer.planned_bytes(len(images)) / 1e6,
    }
