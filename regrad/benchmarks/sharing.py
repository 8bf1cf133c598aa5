"""What an engine takes where its cores are shared, beside its fair share of them.

    ratio = seconds beside a load / (seconds alone * what the load leaves it: cores / (cores + demanded))

A ratio of 1 is the fair share; threads that wait for others that are not running show as more.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regrad.benchmarks.cases import Case
from regrad.benchmarks.quota import quota

LOADS = ("alone", "two busy loops a core", "another engine", "a quota of half a core")
_SECONDS = 8.0  # of calls in each round


def measure_sharing(case: Case, rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Each of :data:`LOADS` in ``rounds`` rounds: median seconds of a batch, and the ratio to the fair share."""
    cores = os.cpu_count() or 1
    seconds: dict[str, list[float]] = {load: [] for load in LOADS}
    cannot: dict[str, str] = {}
    for number in range(rounds):
        for load in LOADS:
            say(f"{case.name}: round {number + 1} of {rounds}, {load}")
            try:
                seconds[load].append(_under(load, case, cores))
            except OSError as error:
                cannot[load] = str(error)
    alone = statistics.median(seconds["alone"])
    fair = {"alone": 1.0, "two busy loops a core": 3.0, "another engine": 2.0, "a quota of half a core": 2.0 * cores}
    rows = [
        {"load": load, "cannot": cannot[load]}
        if load in cannot
        else {
            "load": load,
            "seconds": (median := statistics.median(seconds[load])),
            "fair": fair[load] * alone,
            "ratio": median / (fair[load] * alone),
        }
        for load in LOADS
    ]
    return {"case": case.name, "batch": case.batch, "samples": case.samples, "cores": cores, "rows": rows}


def sharing_as_markdown(results: Sequence[dict[str, Any]]) -> str:
    """A table: seconds of a batch, its fair share, and how far it is from that."""
    head = ("case", "beside", "s a batch", "fair share, s", "times the fair share")
    lines = [head, ("---",) * len(head)]
    for result in results:
        for row in result["rows"]:
            if "cannot" in row:
                numbers = (f"cannot: {row['cannot']}", "", "")
            else:
                numbers = (f"{row['seconds']:.3g}", f"{row['fair']:.3g}", f"{row['ratio']:.2f}")
            lines.append((f"{result['case']}, {result['batch']} images", row["load"], *numbers))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _under(load: str, case: Case, cores: int, seconds: float = _SECONDS) -> float:
    context = multiprocessing.get_context("spawn")
    others = {"another engine": 1}.get(load, 0)
    begin, told = context.Barrier(2 + others), context.SimpleQueue()
    loops = [context.Process(target=_busy, daemon=True) for _ in range(2 * cores if "loops" in load else 0)]
    with quota(0.5 if "quota" in load else None) as group:
        engines = [context.Process(target=_engine, args=(case, begin, told, group, seconds)) for _ in range(1 + others)]
        with _started(engines), _started(loops):
            begin.wait(300)
            found = [told.get() for _ in engines]
    return statistics.median(found)


def _engine(case: Case, begin: Any, told: Any, group: Path | None, seconds: float) -> None:
    from regrad import Scorer
    from regrad.network.probe import probe_images

    classifier = case.classifier()
    scorer = Scorer(classifier, samples=case.samples, engine="exact", device="cpu")
    images = probe_images(case.batch, classifier.channels, classifier.image_size)
    ids = [str(row) for row in range(len(images))]
    scorer(images, ids)
    if group is not None:
        (group / "cgroup.procs").write_text(str(os.getpid()))
    begin.wait()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        started = time.perf_counter()
        scorer(images, ids)
        times.append(time.perf_counter() - started)
    told.put(statistics.median(times))


def _busy() -> None:
    while True:
        pass


@contextmanager
def _started(processes: Sequence[Any]) -> Iterator[None]:
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()
