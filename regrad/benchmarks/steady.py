"""What a job makes of its engine: its images a second between units, over those of the engine's own loop.

    share = images a second from the first committed unit to the last / images a second of the engine's loop

The loop scores batches that lie decoded in memory, the job reads, decodes, scores and commits the same images. Start
and end are not in it; a run's whole time is in its ``run.json``. Rounds are interleaved, and shares taken within one.
"""

from __future__ import annotations

import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch
import torchvision
from PIL import Image
from torch import nn

from regrad import networks
from regrad.cluster import score_on_ray
from regrad.network.probe import probe_images
from regrad.pipeline import process
from regrad.pipeline.options import parse
from regrad.pipeline.prepare import Job, prepare
from regrad.pipeline.results import Committed, Spent, UnitResult
from regrad.pipeline.run import execute, score_here
from regrad.reading.memory import load_images

UNIT_ROWS = 64


@dataclass(frozen=True)
class Work:
    """What is scored, by a network at its own image size.

    Attributes:
        images: how many.
        batch: how many go to the network at once.
        pictures: encoded images (Parquet or tars) to take; none gives JPEGs of seeded blobs.
    """

    name: str
    spec: str
    scores: str
    samples: int
    images: int
    batch: int = 64
    weights: str | None = None
    pictures: tuple[str, ...] = ()

    def flags(self) -> list[str]:
        """Of `regrad score`."""
        given = {"model": self.spec, "scores": self.scores, "samples": self.samples, "batch-size": self.batch}
        given |= {"limit": self.images, "unit-rows": UNIT_ROWS} | ({"weights": self.weights} if self.weights else {})
        return [part for flag, value in given.items() for part in (f"--{flag}", str(value))]


def resnet18() -> tuple[nn.Module, networks.Known]:
    """torchvision's ResNet-18 for 224 x 224, with seeded random weights."""
    torch.manual_seed(0)
    return torchvision.models.resnet18(), {"image_size": 224, "channels": 3, "mean": 0.45, "std": 0.22}


WORKS = {
    work.name: work
    for work in (
        Work("regrad-resnet20", "regrad.networks:resnet20_cifar10", "regrad", 10, 512),
        Work("entropy-resnet18", f"{__name__}:resnet18", "entropy", 0, 1024),
    )
}
ScoreUnits = Callable[[Job], Iterator[UnitResult]]
WAYS: dict[str, tuple[ScoreUnits, tuple[str, ...]]] = {
    "in this process": (score_here, ()),
    "on Ray": (score_on_ray, ()),
    "on Ray, decoded by another process": (score_on_ray, ("--decode-workers", "1")),
}


def measure_job(work: Work, rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Images a second of the loop and of each of :data:`WAYS`, their shares, and what the workers' time went into."""
    with tempfile.TemporaryDirectory(prefix="regrad-benchmark-") as folder:
        if not work.pictures:
            work = replace(work, pictures=(write_jpegs(work, Path(folder)),))
        speeds: dict[str, list[float]] = {way: [] for way in ("loop", *WAYS)}
        spent: dict[str, dict[str, float]] = {}
        for number in range(rounds):
            for way in speeds:
                say(f"{work.name}: round {number + 1} of {rounds}, {way}")
                output = str(Path(folder) / f"{number}-{way.replace(' ', '-').replace(',', '')}")
                score_units, flags = WAYS.get(way, (None, ()))
                job = prepare(parse([*work.pictures, *work.flags(), *flags, "--output", output], "score", None))
                if score_units is None:
                    speeds[way].append(_loop(job))
                else:
                    speed, spent[way] = _steady(job, score_units)
                    speeds[way].append(speed)
    rows = [
        {
            "way": way,
            "images_per_second": statistics.median(found),
            "share": statistics.median(own / loop for own, loop in zip(found, speeds["loop"], strict=True)),
            "worker_seconds": spent.get(way, {}),
        }
        for way, found in speeds.items()
    ]
    return {"work": work.name, "scores": work.scores, "samples": work.samples, "images": work.images, "rows": rows}


def jobs_as_markdown(results: Sequence[dict[str, Any]]) -> str:
    """A table: images a second, the share of the engine's loop, and of the workers' time what is not scoring."""
    head = ("work", "how", "images/s", "of the loop", "workers' time, %")
    lines = [head, ("---",) * len(head)]
    for result in results:
        for row in result["rows"]:
            total = sum(row["worker_seconds"].values())
            steps = ", ".join(f"{step} {100 * own / total:.1f}" for step, own in row["worker_seconds"].items())
            numbers = (f"{row['images_per_second']:.3g}", f"{row['share']:.3f}", steps)
            lines.append((f"{result['work']}, {result['images']} images", row["way"], *numbers))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _loop(job: Job) -> float:
    """Images a second of the engine alone, on batches of decoded images."""
    process.set_up(job.task.threads)
    images, _ = load_images(job.options.inputs, job.classifier, job.options.limit)
    batches = images.split(job.options.batch_size)
    ids = [[str(number) for number in range(len(batch))] for batch in batches]
    job.scorer(batches[0], ids[0])
    started = time.perf_counter()
    for batch, names in zip(batches, ids, strict=True):
        job.scorer(batch, names)
    return len(images) / (time.perf_counter() - started)


def _steady(job: Job, score_units: ScoreUnits) -> tuple[float, dict[str, float]]:
    """Images a second from the first committed unit to the last, and what the workers' time went into."""
    commits: list[tuple[float, int]] = []
    spent: dict[str, float] = {}

    def watched(job: Job) -> Iterator[UnitResult]:
        for result in score_units(job):
            if isinstance(result, Committed):
                commits.append((time.perf_counter(), result.record["rows_in"]))
            if isinstance(result, Spent):
                spent.update({step: spent.get(step, 0.0) + more for step, more in result.seconds.items()})
            yield result

    execute(job, watched)
    return between(commits), spent


def between(commits: Sequence[tuple[float, int]]) -> float:
    """Images a second from the first commit to the last, of the seconds and rows of each: what the first took is start.

    >>> between([(5.0, 64), (6.0, 64), (9.0, 56)])
    30.0
    """
    (first, _), (last, _) = commits[0], commits[-1]
    return sum(rows for _, rows in commits[1:]) / (last - first)


def write_jpegs(work: Work, folder: Path) -> str:
    """A Parquet file of JPEGs of 256 pixels a side."""
    blobs = (255 * probe_images(32, 3, (256, 256)).permute(0, 2, 3, 1)).to(torch.uint8).numpy()
    encoded = [_jpeg(blobs[number % len(blobs)]) for number in range(work.images)]
    path = folder / "pictures.parquet"
    pa.parquet.write_table(pa.table({"image": encoded}), path, row_group_size=UNIT_ROWS)
    return str(path)


def _jpeg(pixels: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "JPEG", quality=90)
    return sink.getvalue()
