"""One run on one, two and four nodes, and on nodes that come and go: images a second, and who took how many units.

    of linear = images a second / (nodes * images a second of one node of the same round)
    evenness  = fewest images of a node / most of a node, while all of them work

Nodes are Ray's own, on addresses of this machine, each with a quota of a core's time. Only the time in which every node
works counts: from the moment when the last of them commits its first unit to the one when the first commits its last.
Each run goes on with an output that holds one unit, as every night but the first does: what a run does once for an
output, the error of its gradients above all, is not shared between nodes.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import secrets
import shutil
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from PIL import Image

from regrad import table
from regrad.benchmarks.clusters import LocalCluster, local_cluster
from regrad.cluster import score_on_ray
from regrad.errors import RegradError
from regrad.pipeline.options import parse
from regrad.pipeline.prepare import prepare
from regrad.pipeline.results import Committed, UnitResult
from regrad.pipeline.run import execute, score_here
from regrad.settings.places import NO_CLUSTER

CORES = 0.25  # of each node
UNIT_ROWS = 4
_NODE_CPUS, _WORKER_CPUS = 3, 2  # the head has one: no worker fits on it
_ACCESS = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}  # of a process, which Ray keeps
_SMALL_UNITS = 400
_EVENT_UNITS = 4  # committed before a node joins or leaves


@dataclass(frozen=True)
class Commit:
    """A unit was committed: seconds since the run began, by which node, how many images.

    The time is the worker's, of whole seconds: a driver hears of the units of a task together.
    """

    at: float
    node: str
    images: int


@dataclass(frozen=True)
class Shared:
    """A run that some nodes shared.

    Attributes:
        seconds, busy: of the run, and of the driver's processor in it.
        rows: in the output, each once.
    """

    commits: list[Commit]
    seconds: float
    busy: float
    rows: int

    def together(self) -> tuple[float, float]:
        """Images a second while every node worked, and the fewest images of a node over the most."""
        nodes = {commit.node for commit in self.commits}
        begun = max(min(c.at for c in self.commits if c.node == node) for node in nodes)
        ended = min(max(c.at for c in self.commits if c.node == node) for node in nodes)
        images = Counter(dict.fromkeys(nodes, 0))
        for commit in self.commits:
            if begun < commit.at <= ended:
                images[commit.node] += commit.images
        return images.total() / (ended - begun), min(images.values()) / max(images.values())

    def between(self) -> list[float]:
        """Seconds from each unit of a node to its next."""
        by_node: dict[str, list[float]] = {}
        for commit in self.commits:
            by_node.setdefault(commit.node, []).append(commit.at)
        return [after - at for times in by_node.values() for at, after in itertools.pairwise(sorted(times))]


def measure_nodes(
    counts: Sequence[int], images: int, weights: str | None, rounds: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Medians of ``rounds`` runs of ``images`` images for each number of nodes, and runs in which one comes or goes.

    REGrad (N = 10, exact) by the ResNet-20 of ``weights``, seeded random ones unless given, on pictures of noise.
    """
    with tempfile.TemporaryDirectory(prefix="regrad-nodes-") as name:
        folder = Path(name)
        flags = [write_noise(images, folder), *_flags(weights, folder)]
        _begin(flags, begun := folder / "begun")
        runs: dict[int, list[Shared]] = {count: [] for count in counts}
        for number in range(rounds):
            for count in counts:
                say(f"round {number + 1} of {rounds}: {count} nodes")
                shutil.copytree(begun, output := folder / f"{number}-{count}")
                with _cluster(count) as cluster:
                    runs[count].append(_run(cluster, count, flags, str(output)))
        say("a node that joins, and one that leaves")
        joined = _event(flags, folder, "joins", 1, lambda cluster: cluster.join(_NODE_CPUS, CORES))
        left = _event(flags, folder, "leaves", 2, lambda cluster: cluster.nodes[1].stop())
        say("what a unit costs the driver")
        driver = _driver_of_small_units(folder)
    told = {"cores": CORES, "images": images, "unit_images": UNIT_ROWS, "driver_seconds_a_unit": driver}
    return told | {"nodes": _rows(runs), "events": [joined, left], "runs": _all(runs)}


def nodes_as_markdown(measured: dict[str, Any]) -> str:
    """Two tables: by the number of nodes, and what became of the nodes that came and went."""
    head = ("nodes", "images/s", "of linear", "fewest over most", "first unit after, s", "whole run, s")
    lines = [head, ("---",) * len(head)]
    for row in measured["nodes"]:
        numbers = (f"{row[name]:.2f}" for name in ("images_per_second", "of_linear", "evenness"))
        lines.append((str(row["nodes"]), *numbers, f"{row['first']:.0f}", f"{row['seconds']:.0f}"))
    tables = ["\n".join(f"| {' | '.join(line)} |" for line in lines)]
    for event in measured["events"]:
        shares = ", ".join(f"{node} {images}" for node, images in event["images_by_node"].items())
        first = "" if event["first_after"] is None else f"; its first unit came {event['first_after']:.0f} s later"
        tables.append(
            f"A node {event['event']} after {event['at']:.0f} s: {event['rows']} of {measured['images']} images have "
            f"one row, committed by {shares}{first}."
        )
    return "\n\n".join(tables)


def write_noise(images: int, folder: Path) -> str:
    """A Parquet file of so many PNGs of 32x32 pixels of seeded noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
    path = folder / "pictures.parquet"
    pa.parquet.write_table(pa.table({"image": [_png(each) for each in pixels]}), path, row_group_size=UNIT_ROWS)
    return str(path)


def _png(pixels: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


def _flags(weights: str | None, folder: Path) -> list[str]:
    if weights is None:
        weights = str(folder / "weights.safetensors")
        _save_random(weights)
    model = ("--model", "regrad.networks:resnet20_cifar10", "--weights", weights)
    return [*model, "--scores", "regrad", "--samples", "10", "--batch-size", str(UNIT_ROWS)]


def _save_random(path: str) -> None:
    import safetensors.torch
    import torch

    from regrad import networks

    torch.manual_seed(0)
    network, _ = networks.resnet20_cifar10()
    safetensors.torch.save_file(network.state_dict(), path)


def _begin(flags: Sequence[str], output: Path) -> None:
    """One unit, by this process."""
    sizes = ("--unit-rows", str(UNIT_ROWS), "--limit", str(UNIT_ROWS))
    job = prepare(parse([*flags, *sizes, "--ray-address", NO_CLUSTER, "--output", str(output)], "score", ""))
    execute(job, score_here)


@contextlib.contextmanager
def _cluster(nodes: int) -> Iterator[LocalCluster]:
    with local_cluster(_ACCESS) as cluster, _variables(_ACCESS):
        for _ in range(nodes):
            cluster.join(_NODE_CPUS, CORES)
        yield cluster


@contextlib.contextmanager
def _variables(values: dict[str, str]) -> Iterator[None]:
    held = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in held.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _driver_of_small_units(folder: Path) -> float:
    """Seconds of the driver's processor for each unit, where units are of one image and take no time to score."""
    flags = [write_noise(_SMALL_UNITS, folder), "--model", "regrad.networks:resnet20_cifar10"]
    _save_random(weights := str(folder / "small.safetensors"))
    flags += ["--weights", weights, "--scores", "entropy"]
    with local_cluster(_ACCESS) as cluster, _variables(_ACCESS):
        cluster.join(_NODE_CPUS)
        shared = _run(cluster, 1, flags, str(folder / "small"), rows=1)
    return shared.busy / len(shared.commits)


def _run(
    cluster: LocalCluster,
    workers: int,
    flags: Sequence[str],
    output: str,
    after: Callable[[list[Commit]], None] = lambda commits: None,
    rows: int = UNIT_ROWS,
) -> Shared:
    """A run on ``cluster`` in units of so many rows; ``after`` is told of every commit, with all so far."""
    sizes = ("--unit-rows", str(rows), "--num-workers", str(workers), "--cpus-per-worker", str(_WORKER_CPUS))
    job = prepare(parse([*flags, *sizes, "--ray-address", cluster.address, "--output", output], "score", ""))
    began, started, spent = time.time(), time.perf_counter(), time.process_time()
    commits: list[Commit] = []

    def watched(job: Any) -> Iterator[UnitResult]:
        for result in score_on_ray(job):
            if isinstance(result, Committed):
                record = result.record
                at = datetime.fromisoformat(record["finished"]).timestamp() - began
                commits.append(Commit(at, record["node"], record["rows_in"]))
                after(commits)
            yield result

    execute(job, watched)
    seconds, busy = time.perf_counter() - started, time.process_time() - spent
    held = table.read(output, ["row"])
    if len(set(held["row"].to_pylist())) != held.num_rows:
        raise RegradError(f"{output}: an image has two rows")
    return Shared(commits, seconds, busy, held.num_rows)


def _event(
    flags: Sequence[str], folder: Path, name: str, nodes: int, happen: Callable[[LocalCluster], Any]
) -> dict[str, Any]:
    """A run by two workers in which something happens to the nodes after :data:`_EVENT_UNITS` units."""
    with _cluster(nodes) as cluster:
        known = {node.address for node in cluster.nodes}
        threads: list[threading.Thread] = []
        at = float("nan")

        def after(commits: list[Commit]) -> None:
            nonlocal at
            if len(commits) == _EVENT_UNITS:
                at = commits[-1].at
                threads.append(threading.Thread(target=happen, args=(cluster,)))
                threads[0].start()

        shared = _run(cluster, 2, flags, str(folder / name), after)
        threads[0].join()
    new = [commit.at - at for commit in shared.commits if commit.node not in known]
    images = Counter[str]()
    for commit in shared.commits:
        images[commit.node] += commit.images
    return {
        "event": name,
        "at": at,
        "rows": shared.rows,
        "images_by_node": dict(images),
        "first_after": min(new, default=None),
        "seconds": shared.seconds,
    }


def _rows(runs: dict[int, list[Shared]]) -> list[dict[str, Any]]:
    speeds = {count: [run.together()[0] for run in of_count] for count, of_count in runs.items()}
    fewest = min(runs)
    return [
        {
            "nodes": count,
            "images_per_second": statistics.median(speeds[count]),
            "of_linear": statistics.median(
                speed / (alone * count / fewest) for speed, alone in zip(speeds[count], speeds[fewest], strict=True)
            ),
            "evenness": statistics.median(run.together()[1] for run in of_count),
            "first": statistics.median(min(commit.at for commit in run.commits) for run in of_count),
            "seconds": statistics.median(run.seconds for run in of_count),
        }
        for count, of_count in runs.items()
    ]


def _all(runs: dict[int, list[Shared]]) -> list[dict[str, Any]]:
    """What a simulation is compared with."""
    return [
        {
            "nodes": count,
            "images_per_second": run.together()[0],
            "evenness": run.together()[1],
            "seconds": run.seconds,
            "driver_seconds": run.busy,
            "first": min(commit.at for commit in run.commits),
            "last": max(commit.at for commit in run.commits),
            "unit_seconds": float(np.mean(run.between())),
            "images": sum(commit.images for commit in run.commits),
        }
        for count, of_count in runs.items()
        for run in of_count
    ]
