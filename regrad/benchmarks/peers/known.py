"""The contenders: what each is, what it reads, and the command that a user of it would give."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from regrad.benchmarks.steady import Work

SCRIPTS = Path(__file__).parents[3] / "docs/peers"
SEEN = "seen"  # the module of scripts' folder whose score tells when something is scored


@dataclass(frozen=True)
class Peer:
    """One contender.

    Attributes:
        library: whose version is told.
        script: of :data:`SCRIPTS`; None is `regrad score`.
        reads: which form of the images: ``images`` or ``rows``.
        flags: of `regrad score`.
        tables: where in its output rows are; the last ones hold what could not be scored.
    """

    name: str
    library: str
    script: str | None = None
    reads: str = "images"
    flags: tuple[str, ...] = ()
    tables: tuple[str, ...] = ("",)

    def command(self, python: str, images: Path, output: Path, work: Work) -> list[str]:
        """Its command line on the laid out ``images``; a script is told its settings by a file beside ``output``."""
        place = str(images / self.reads)
        if self.script is None:
            flags = ["--score-module", SEEN, "--unit-rows", str(work.batch), *self.flags, "--output", str(output)]
            return [python, "-m", "regrad", "score", place, *scoring(work), *flags]
        settings = output.with_suffix(".json")
        settings.write_text(json.dumps(told(work)), encoding="utf-8")
        return [python, str(SCRIPTS / self.script), place, str(output), str(settings)]


def told(work: Work) -> dict[str, object]:
    """What a script is told."""
    scores = {"scores": [work.scores, SEEN], "samples": work.samples, "score_module": SEEN}
    blocks = {"batch": work.batch, "blocks": -(-work.images // work.batch)}
    return {"model": work.spec, "weights": work.weights} | blocks | scores


def scoring(work: Work) -> list[str]:
    """The same as flags of `regrad score`."""
    given = {"model": work.spec, "weights": work.weights, "scores": f"{work.scores},{SEEN}"}
    given |= {"samples": str(work.samples), "batch-size": str(work.batch)}
    return [part for flag, value in given.items() if value is not None for part in (f"--{flag}", value)]


OWN_TABLES = ("scores", "quarantine")
PEERS = (
    Peer("regrad score, in one process", "regrad", flags=("--ray-address", "none"), tables=OWN_TABLES),
    Peer("regrad score, on Ray", "regrad", flags=("--ray-address", "local"), tables=OWN_TABLES),
    Peer("DataLoader", "torch", "dataloader.py"),
    Peer("Ray Data, read_images", "ray", "ray_images.py"),
    Peer("Ray Data, ScoreImages and checkpoint", "ray", "ray_checkpoint.py", "rows"),
    Peer("Daft", "daft", "daft_frame.py", "rows"),
    Peer("NeMo Curator", "nemo-curator", "curator_images.py", "tars"),
)


def python_of(peer: Peer, pythons: Mapping[str, str]) -> str:
    """The interpreter that has its library: the one named for it, or this one."""
    return pythons.get(peer.library, sys.executable)
