"""How long a run takes on how many GPUs, and what it costs: the run simulated, event by event.

    efficiency = images / (GPUs * images a second of one * seconds of the run)

What happens is what the code does: tasks of neighbouring units go out one by one, a worker scores while it commits one
unit after another, each commit asks the store so many times, the driver takes in one result after another, and a worker
that is lost has its task done again, but not what was committed of it. Every number is a field of :class:`Fleet`.
"""

from __future__ import annotations

import io
import math
import random
import statistics
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import simpy

from regrad.pipeline.plan import DEFAULT_UNIT_ROWS, task_sizes

Event = Iterator[simpy.Event]


@dataclass(frozen=True)
class Fleet:
    """What is scored, by what, and what everything takes; seconds unless it says otherwise.

    Attributes:
        speed: images a second of one GPU, reading and decoding included.
        spread: standard deviation of a unit's time over its mean, log-normal.
        slow: share of the units that take ``slow_times`` as long.
        begin: until Ray is up and the driver has planned, but for ``plan``, a shard.
        load: until a worker that was started scores.
        handing: of the driver's processor, for each unit.
        asking: until a worker has its next task.
        answer: until the store has answered one request.
        writes, reads: requests a commit makes.
        store_writes, store_reads: requests a second that the store answers.
        kept: of folding and merging at the end, a unit.
        lost: how often a GPU goes, an hour, and ``boot``: until another is there.
        prices: of a GPU's hour, of the head's, and of a thousand writes and reads.
    """

    images: int = 100_000_000
    gpus: int = 8
    unit_images: int = DEFAULT_UNIT_ROWS
    shard_images: int = 10_000
    speed: float = 340.0
    spread: float = 0.05
    slow: float = 0.001
    slow_times: float = 5.0
    begin: float = 60.0
    plan: float = 3.2e-4
    load: float = 15.0
    handing: float = 2e-3
    asking: float = 0.02
    answer: float = 0.03
    writes: int = 5
    reads: int = 5
    store_writes: float = 3500.0
    store_reads: float = 5500.0
    kept: float = 1e-3
    lost: float = 0.0
    boot: float = 240.0
    prices: tuple[float, float, float, float] = (1.0, 0.2, 0.005, 0.0004)


@dataclass(frozen=True)
class Simulated:
    """How a simulated run went.

    Attributes:
        redone: units that were scored once more.
        commits: seconds of each unit's arrival at the driver.
    """

    seconds: float
    redone: int
    efficiency: float
    cost: float
    commits: list[float]


class _Run:
    """One run of a fleet, as processes of a simulation."""

    def __init__(self, fleet: Fleet, seed: int):
        self.fleet, self.random = fleet, random.Random(seed)  # noqa: S311 - chances, not secrets
        self.now = simpy.Environment()
        self.driver = simpy.Resource(self.now)
        self.store = {True: simpy.Resource(self.now), False: simpy.Resource(self.now)}
        units = math.ceil(fleet.images / fleet.unit_images)
        self.tasks = deque(task_sizes([1.0] * units, fleet.gpus))
        self.left, self.redone = units, 0
        self.commits: list[float] = []
        self.over, self.given_back = self.now.event(), self.now.event()

    def run(self) -> float:
        """Seconds until all is committed and told."""
        for _ in range(self.fleet.gpus):
            self.now.process(self._gpu())
        self.now.run(until=self.over)
        units = len(self.commits)
        return float(self.now.now) + self.fleet.kept * units

    def _gpu(self) -> Event:
        """Workers on a GPU, one after the other."""
        fleet = self.fleet
        shards = math.ceil(fleet.images / fleet.shard_images)
        yield self.now.timeout(fleet.begin + fleet.plan * shards)
        while self.left:
            worker = self.now.process(self._worker())
            if not fleet.lost:
                yield worker
                return
            yield worker | self.now.timeout(self.random.expovariate(fleet.lost / 3600))
            if worker.is_alive:
                worker.interrupt()
                yield self.now.timeout(fleet.boot)
            elif not self.tasks:
                yield self.given_back

    def _worker(self) -> Event:
        committing: simpy.Process | None = None
        held: dict[str, int] = {"units": 0, "committed": 0}
        try:
            yield self.now.timeout(self.fleet.load)
            while self.tasks:
                held = {"units": self.tasks.popleft(), "committed": 0}
                yield self.now.timeout(self.fleet.asking)
                committing = None
                for _ in range(held["units"]):
                    yield self.now.timeout(self._unit_seconds())
                    committing = self.now.process(self._commit(committing, held))
                yield committing
        except simpy.Interrupt:
            again = held["units"] - held["committed"]
            if again > 0:
                self.redone += 1
                self.tasks.append(again)
                held["units"] = 0  # what was under way comes to nothing
                self.given_back.succeed()
                self.given_back = self.now.event()

    def _unit_seconds(self) -> float:
        fleet = self.fleet
        seconds = fleet.unit_images / fleet.speed
        if self.random.random() < fleet.slow:
            return seconds * fleet.slow_times
        sigma = math.sqrt(math.log1p(fleet.spread**2))
        return seconds * self.random.lognormvariate(-(sigma**2) / 2, sigma)

    def _commit(self, before: simpy.Process | None, held: dict[str, int]) -> Event:
        fleet = self.fleet
        if before is not None and before.is_alive:
            yield before  # one thread commits
        yield self.now.timeout((fleet.writes + fleet.reads) * fleet.answer)
        for writes, seconds in ((True, fleet.writes / fleet.store_writes), (False, fleet.reads / fleet.store_reads)):
            with self.store[writes].request() as turn:
                yield turn
                yield self.now.timeout(seconds)
        if not held["units"]:
            return
        held["committed"] += 1
        self.now.process(self._told())

    def _told(self) -> Event:
        with self.driver.request() as turn:
            yield turn
            yield self.now.timeout(self.fleet.handing)
        self.commits.append(float(self.now.now))
        self.left -= 1
        if not self.left:
            self.over.succeed()


def simulate(fleet: Fleet, seed: int = 0) -> Simulated:
    """One run of ``fleet``, with seeded chances."""
    run = _Run(fleet, seed)
    seconds = run.run()
    units = len(run.commits)
    gpu_hours, (of_gpu, of_head, of_writes, of_reads) = fleet.gpus * seconds / 3600, fleet.prices
    asked = units * (fleet.writes * of_writes + fleet.reads * of_reads) / 1000
    return Simulated(
        seconds=seconds,
        redone=run.redone,
        efficiency=fleet.images / (fleet.gpus * fleet.speed * seconds),
        cost=gpu_hours * of_gpu + seconds / 3600 * of_head + asked,
        commits=run.commits,
    )


#: One thing worse or better than it is, and how.
CHANGES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "a GPU ten times as fast": {"speed": 3400.0},
    "units of 256 images": {"unit_images": 256},
    "units of 10,240 images": {"unit_images": 10_240},
    "the driver takes ten times as long for a unit": {"handing": 0.02},
    "the store answers after 0.3 s": {"answer": 0.3},
    "the store takes 350 writes a second": {"store_writes": 350.0},
    "a unit in 100 takes 20 times as long": {"slow": 0.01, "slow_times": 20.0},
    "a worker is ready after 150 s": {"load": 150.0},
    "a GPU is lost every 10 hours": {"lost": 0.1},
}
GPUS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
IMAGES = (10**6, 10**7, 10**8, 10**9)
_EFFICIENT = 0.9


def measure_fleet(
    fleet: Fleet, nodes: dict[str, Any] | None, images: Sequence[int], gpus: Sequence[int], say: Callable[[str], None]
) -> dict[str, Any]:
    """Seconds, efficiency and cost for all of ``images`` on all of ``gpus``; the knee under each of :data:`CHANGES`.

    Args:
        nodes: what :func:`regrad.benchmarks.nodes.measure_nodes` told, with which the simulation is compared.
    """
    rows = []
    for count in images:
        for number in gpus:
            say(f"{count} images on {number} GPUs")
            rows.append({"images": count, "gpus": number} | _told(replace(fleet, images=count, gpus=number)))
    knees = []
    for name, change in CHANGES.items():
        say(f"the knee: {name}")
        runs = {number: _told(replace(fleet, gpus=number, **change)) for number in gpus}
        good = [number for number, run in runs.items() if run["efficiency"] >= _EFFICIENT]
        most = runs[max(gpus)]
        knees.append({"change": name, "knee": max(good, default=None)} | most)
    return {
        "fleet": asdict(fleet),
        "rows": rows,
        "knees": knees,
        "checked": [] if nodes is None else beside_real_runs(nodes),
    }


def _told(fleet: Fleet) -> dict[str, Any]:
    simulated = simulate(fleet)
    return {name: getattr(simulated, name) for name in ("seconds", "efficiency", "cost", "redone")}


def beside_real_runs(nodes: dict[str, Any]) -> list[dict[str, Any]]:
    """When real runs on several nodes committed their last unit, and when simulated ones did so.

    Known to these: the time until the first unit, the seconds of a unit on the fewest nodes, and what a unit costs the
    driver.
    """
    fewest = min(run["nodes"] for run in nodes["runs"])
    unit = statistics.median(run["unit_seconds"] for run in nodes["runs"] if run["nodes"] == fewest)
    known = Fleet(
        images=nodes["runs"][0]["images"],
        unit_images=nodes["unit_images"],
        speed=nodes["unit_images"] / unit,
        spread=0.0,
        slow=0.0,
        plan=0.0,
        begin=0.0,
        handing=nodes["driver_seconds_a_unit"],
        asking=0.0,
        answer=0.0,
        kept=0.0,
    )
    rows = []
    for count in sorted({run["nodes"] for run in nodes["runs"]}):
        real = [run for run in nodes["runs"] if run["nodes"] == count]
        first, last = (statistics.median(run[name] for run in real) for name in ("first", "last"))
        simulated = simulate(replace(known, gpus=count, load=first - unit)).commits[-1]
        rows.append({"nodes": count, "real": last, "simulated": simulated, "off": simulated / last - 1})
    return rows


def fleet_as_markdown(measured: dict[str, Any]) -> str:
    """Tables: hours and cost by images and GPUs, the knee and what moves it, and the comparison with real runs."""
    gpus = sorted({row["gpus"] for row in measured["rows"]})
    cells = {(row["images"], row["gpus"]): row for row in measured["rows"]}
    lines = [("images", *(f"{number} GPUs" if number > 1 else "1 GPU" for number in gpus)), ("---",) * (len(gpus) + 1)]
    for images in sorted({row["images"] for row in measured["rows"]}):
        own = (cells[images, number] for number in gpus)
        lines.append((f"{images:,}", *(f"{row['seconds'] / 3600:.3g} h, {row['efficiency']:.2f}" for row in own)))
    tables = [lines]
    head = ("", f"GPUs at {_EFFICIENT:.0%}", f"hours on {max(gpus)}", "efficiency there", "tasks done again")
    lines = [head, ("---",) * len(head)]
    for row in measured["knees"]:
        most = (f"{row['seconds'] / 3600:.2f}", f"{row['efficiency']:.2f}", f"{row['redone']}")
        lines.append((row["change"], "none" if row["knee"] is None else str(row["knee"]), *most))
    tables.append(lines)
    if measured["checked"]:
        compared_by = ("nodes", "last unit after, s", "simulated, s", "off")
        numbers = [
            (str(row["nodes"]), f"{row['real']:.1f}", f"{row['simulated']:.1f}", f"{row['off']:+.1%}")
            for row in measured["checked"]
        ]
        tables.append([compared_by, ("---",) * len(compared_by), *numbers])
    return "\n\n".join("\n".join(f"| {' | '.join(line)} |" for line in lines) for lines in tables)


def plot_of_fleet(measured: dict[str, Any]) -> bytes:
    """Hours and cost over GPUs as SVG, a line for each number of images."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for images in sorted({row["images"] for row in measured["rows"]}):
        own = [row for row in measured["rows"] if row["images"] == images]
        gpus = [row["gpus"] for row in own]
        left.loglog(gpus, [row["seconds"] / 3600 for row in own], marker="o", label=f"{images:,} images")
        right.loglog(gpus, [row["cost"] / row["images"] * 1e6 for row in own], marker="o")
    left.set(xlabel="GPUs", ylabel="hours")
    right.set(xlabel="GPUs", ylabel="prices of a GPU-hour for a million images")
    left.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
