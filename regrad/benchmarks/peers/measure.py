"""Every contender on the same images: how fast it is, and what it loses where something fails.

steady = images a second from the first scored batch to the last
again  = rows that went through the scorer, of both runs, beyond one an image, over the images
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from regrad import storage
from regrad.benchmarks import render, steady
from regrad.benchmarks.peers.counted import ImageCounts, count_rows, scores_of
from regrad.benchmarks.peers.known import PEERS, SCRIPTS, Peer, python_of
from regrad.benchmarks.peers.material import Material, write_material
from regrad.benchmarks.peers.watch import Kill, Ran, kill_all, kill_worker, run_watched
from regrad.benchmarks.steady import Work
from regrad.cli import FOR_TORCH
from regrad.errors import UsageError

Say = Callable[[str], None]
RACES = {
    name: replace(steady.WORKS[name], images=images, batch=batch)
    for name, images, batch in (("entropy-resnet18", 384, 32), ("regrad-resnet20", 192, 16))
}
# For all alike: what regrad sets for PyTorch, Ray's workers at the niceness of their command as regrad has them, and a
# Ray of one's own.
ENVIRONMENT = FOR_TORCH | {"RAY_worker_niceness": "0", "RAY_ADDRESS": ""}
FAULTY, FAULTY_BATCH = 192, 16  # images, and how many at once, of what is broken: whether it is fast is not asked
# A first run, what ends it or None, and whether the same command is then given again.
FAULTS: dict[str, tuple[Kill | None, bool]] = {
    "truncated": (None, False),
    "command killed": (kill_all, True),
    "worker killed": (kill_worker, False),
}


@dataclass(frozen=True)
class Stage:
    """Where contenders run: the images, and which interpreters have the libraries."""

    work: Work
    folder: Path
    material: Material
    pythons: Mapping[str, str]

    def run(self, peer: Peer, name: str, at: int | None = None, kill: Kill = kill_all) -> tuple[Ran, ImageCounts]:
        """Give the peer's command, and count what it left in ``name``, a folder that may have rows already."""
        place = self.folder / name
        place.mkdir(parents=True, exist_ok=True)
        command = peer.command(python_of(peer, self.pythons), self.material.folder, place / "out", self.work)
        root = SCRIPTS.parents[1]
        path = os.pathsep.join([str(root), str(SCRIPTS)])
        programs = os.pathsep.join([str(Path(python_of(peer, self.pythons)).parent), os.environ["PATH"]])
        ran = run_watched(command, place / "run", ENVIRONMENT | {"PYTHONPATH": path, "PATH": programs}, at, kill)
        return ran, count_rows(self.tables(peer, name), self.work.scores, self.material.names)

    def tables(self, peer: Peer, name: str) -> list[Path]:
        """The folders of its rows."""
        return [self.folder / name / "out" / table for table in peer.tables]


def measure_speed(
    work: Work, rounds: int, pythons: Mapping[str, str], say: Say, peers: Sequence[Peer] = PEERS
) -> dict[str, Any]:
    """Seconds to the last row on disk, steady images a second and memory of each peer, medians of ``rounds``.

    Every second round is in the opposite order. Scores are compared with those of the first peer.
    """
    with tempfile.TemporaryDirectory(prefix="regrad-peers-") as folder:
        stage = _staged(work, Path(folder), pythons)
        rows = {peer.name: _row(peer, pythons) for peer in peers}
        expected: dict[str, float] = {}
        for number in range(rounds):
            for peer in peers if number % 2 == 0 else reversed(peers):
                row = rows[peer.name]
                if row["cannot"]:
                    continue
                say(f"{work.name}: round {number + 1} of {rounds}, {peer.name}")
                load = os.getloadavg()[0]
                ran, counted = stage.run(peer, f"{number}/{peer.name}")
                if ran.ended != 0 or counted.scored < work.images:
                    row["cannot"] = ran.said or f"ended with {ran.ended}"
                    continue
                scores = scores_of(stage.tables(peer, f"{number}/{peer.name}"), work.scores)
                expected = expected or scores
                batches = [(batch.time, batch.rows) for batch in ran.seen]
                row["rounds"].append(
                    {
                        "seconds": (counted.last or ran.started) - ran.started,
                        "steady": steady.between(batches),
                        "peak_mb": ran.peak_mb,
                        "load": load,
                        "difference": max(abs(scores[name] - value) for name, value in expected.items()),
                    }
                )
    return {"work": work.name, "scores": work.scores, "images": work.images, "rows": list(rows.values())}


def measure_losses(work: Work, pythons: Mapping[str, str], say: Say, peers: Sequence[Peer] = PEERS) -> dict[str, Any]:
    """What each peer leaves of the first :data:`FAULTY` images under each of :data:`FAULTS`, once."""
    work = replace(work, images=min(work.images, FAULTY), batch=min(work.batch, FAULTY_BATCH))
    rows = [_row(peer, pythons) for peer in peers]
    for (fault, (kill, again)), (peer, row) in itertools.product(FAULTS.items(), zip(peers, rows, strict=True)):
        if row["cannot"]:
            continue
        say(f"{work.name}: {fault}, {peer.name}")
        with tempfile.TemporaryDirectory(prefix="regrad-peers-") as folder:
            stage = _staged(work, Path(folder), pythons)
            if kill is None:
                stage.material.truncate(stage.material.names[work.images // 2])
            runs = [stage.run(peer, "a", work.images // 2 if kill else None, kill or kill_all)]
            runs += [stage.run(peer, "a")] if again else []
            row[fault] = {
                "ended": [ran.ended for ran, _ in runs],
                "said": [ran.said for ran, _ in runs],
                "nothing_to_kill": runs[0][0].without,
                "through": runs[-1][0].rows,  # of all runs, whose lines are in one file
                **runs[-1][1].as_dict(),
            }
    return {"work": work.name, "images": work.images, "rows": rows}


def _staged(work: Work, folder: Path, pythons: Mapping[str, str]) -> Stage:
    """The images of ``work`` laid out in ``folder``."""
    pictures = work.pictures or (steady.write_jpegs(work, folder),)
    return Stage(work, folder, write_material(folder / "in", pictures, work.images, work.batch), pythons)


def _row(peer: Peer, pythons: Mapping[str, str]) -> dict[str, Any]:
    """What is told of a peer before it runs: the version of its library, or that there is none."""
    code = f"from importlib.metadata import version; print(version({peer.library!r}))"
    asked = subprocess.run([python_of(peer, pythons), "-c", code], capture_output=True, text=True, check=False)  # noqa: S603
    version = asked.stdout.strip()
    return {"name": peer.name, "version": version, "cannot": None if version else "not installed", "rounds": []}


def medians(row: Mapping[str, Any]) -> dict[str, float]:
    """Of everything that was measured in each round."""
    return {name: statistics.median(each[name] for each in row["rounds"]) for name in row["rounds"][0]}


def named_peers(names: Sequence[str] | None) -> list[Peer]:
    """The peers called ``names``; all if there are none.

    Raises:
        UsageError: there is none of a name.
    """
    known = {peer.name: peer for peer in PEERS}
    if unknown := [name for name in names or () if name not in known]:
        raise UsageError(f"no contender {'; '.join(unknown)}; those of peers are {'; '.join(known)}")
    return [known[name] for name in names or known]


class PeersFile:
    """What was measured, in ``peers.json`` of a folder: a peer's newest row of a kind and work stands for it."""

    def __init__(self, output: str | None):
        self.path = storage.join(output, "peers.json") if output else None
        self.told: dict[str, Any] = {"speed": {}, "losses": {}}
        with contextlib.suppress(FileNotFoundError):
            self.told = json.loads(storage.read_bytes(self.path)) if self.path else self.told
        self.told["machine"] = render.machine(torch.device("cpu")) | {"cores": os.cpu_count()}

    def add(self, kind: str, result: dict[str, Any]) -> None:
        """Take the rows of ``result`` in, and write."""
        before = self.told[kind].get(result["work"], {"rows": []})
        rows = {row["name"]: row for row in (*before["rows"], *result["rows"])}
        ordered = [rows[peer.name] for peer in PEERS if peer.name in rows]
        self.told[kind][result["work"]] = result | {"rows": ordered}
        if self.path:
            storage.write_atomically(self.path, json.dumps(self.told, indent=1).encode())
