"""Images through the score job: one output for each network, seed and setting, which a later run goes on with."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from regrad import storage, table
from regrad.cli import say
from regrad.cluster import score_on_ray
from regrad.experiments.material import image_sets, models
from regrad.experiments.material.packs import Packs
from regrad.pipeline import options
from regrad.pipeline.prepare import prepare
from regrad.pipeline.run import execute, score_here
from regrad.scores import SCORES

FIT_IMAGES = "2000"  # training images for scores that are fitted, where they are at hand
#: Column -> (n,) values: the scores, and ``label`` and ``prediction``.
Columns = dict[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Study:
    """What all tables of one run have in common.

    Attributes:
        data: folder or URI of the packs.
        output: folder or URI for images, weights, scores and results.
        images: of each set.
        seeds: training seeds of networks trained here, noise seeds of published ones.
        compute: False takes what the output holds already, and computes nothing.
        download: fetch missing packs by torchvision.
        on_ray: score on Ray's workers, as regrad score does, and not in this process.
    """

    data: str
    output: str
    images: int = 1000
    seeds: int = 3
    compute: bool = True
    download: bool = False
    on_ray: bool = False

    @property
    def packs(self) -> Packs:
        """Where the images come from."""
        return Packs(self.data, self.place("packs"), self.download)

    def place(self, *parts: str) -> str:
        """A URI inside the output."""
        return storage.join(self.output, *parts)


@dataclass(frozen=True)
class Setting:
    """How images are scored: flags of regrad score, under a name that its outputs go by; a switch has no value."""

    name: str
    scores: tuple[str, ...]
    flags: dict[str, str] = field(default_factory=dict)


def scored(study: Study, model: str, seed: int, sets: Sequence[str], setting: Setting) -> dict[str, Columns]:
    """The rows of each set, the known one first, scored now where they are missing; sets without rows are left out.

    Nothing is scored where the known set cannot be had. The images of a set are the same ones, in the same order, for
    every network, seed and setting.
    """
    output = study.place("scores", model, f"seed-{seed}", setting.name)
    there = [name for name in sets if study.packs.has(image_sets.IMAGE_SETS[name].pack)]
    if study.compute and sets[0] in there:
        folder = study.place("images")
        shards = [shard for name in there for shard in image_sets.shards(name, study.packs, folder, study.images)]
        _score(study, model, seed, shards, setting, output)
    if not storage.list_files(storage.join(output, "scores"), ".parquet"):
        return {}
    rows = table.read(output)
    sources = rows["source"].to_pylist()
    owners = np.asarray([source.rsplit("/", 2)[-2] for source in sources])
    shard = np.asarray([int(source.rsplit("-", 1)[-1].removesuffix(".parquet")) for source in sources])
    places = shard * image_sets.SHARD_ROWS + rows["row"].to_numpy()
    kept = [name for name in rows.column_names if name not in ("id", "source", "row", "nll", "digest")]
    columns = {name: rows[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in kept}
    columns_of = {}
    for name in sets:
        of_set = np.flatnonzero(owners == name)
        order = of_set[np.argsort(places[of_set])]
        # Up to the first image that is not there yet, so that runs compare image by image.
        count = int((places[order] == np.arange(order.size)).cumprod().sum())
        if count:
            columns_of[name] = {column: values[order[: min(count, study.images)]] for column, values in columns.items()}
    return columns_of


def _score(study: Study, model: str, seed: int, shards: list[str], setting: Setting, output: str) -> None:
    known = models.MODELS[model]
    weights = models.weights(model, seed, study.packs, study.place("weights"))
    fitted = {name for name in setting.scores if name in SCORES and SCORES[name].fitted}
    there = study.packs.has(known.fit_pack)
    scores = [name for name in setting.scores if there or name not in fitted]
    flags = {"model": known.spec, "scores": ",".join(scores), "seed": str(seed)} | setting.flags
    flags |= {"weights": weights} if weights else {}
    if fitted and there:
        flags = {"fit-data": study.packs.find(known.fit_pack), "fit-limit": FIT_IMAGES} | flags
    given = [part for key, value in flags.items() for part in (f"--{key}", value) if part]
    command = [*shards, "--output", output, *given]
    job = prepare(options.parse(command, "score", None))
    if job.plan.pending:
        shown = [f"{len(shards)} shards", *command[len(shards) :]]
        say(f"scoring {len(job.plan.pending)} of {shlex.join(shown)}")
        execute(job, score_on_ray if study.on_ray else score_here)
