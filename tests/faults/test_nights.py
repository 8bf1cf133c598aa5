"""Nights in any order of events, and cut short anywhere: every image is counted once."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regrad import storage, table
from regrad.errors import RegradError
from regrad.reading.samples import digest_of
from tests.nights import Incoming, camera
from tests.shards import png, write_folder, write_members, write_parquet


@pytest.mark.parametrize("seed", range(3))
def test_any_nights(tmp_path: Path, seed: int) -> None:
    """Files come, go, change and come back, and shards are written again: every image is counted once."""
    random = np.random.default_rng(seed)
    inputs = tmp_path / "in"
    held: dict[str, dict[str, bytes]] = {"camera": {}, "0.parquet": {}, "1.tar": {}}
    number, counted, total = 0, set[tuple[str, str, bytes]](), 0
    incoming = Incoming(tmp_path)
    incoming.sources = [str(inputs / name) for name in held]
    for night in range(5):
        for name, images in held.items():
            if name != "camera" and night and random.random() < 0.5:
                continue
            for old in list(images):
                if random.random() < 0.1:
                    del images[old]
                elif random.random() < 0.05:
                    number += 1
                    images[old] = picture(number)
            for _ in range(random.integers(1, 12)):
                number += 1
                images[f"{uuid.UUID(bytes=random.bytes(16))}"] = picture(number)
            write(inputs / name, images)
        new = {(name, key, image) for name, images in held.items() for key, image in images.items()} - counted
        assert incoming.night("--night", f"n{night}")[1] == len(new)
        counted |= new
        total += len(new)
        found = table.read(incoming.output).to_pylist()
        there = {(Path(row["source"]).name, row["id"].removesuffix(".png"), row["digest"]) for row in found}
        assert len(found) == len(there)
        assert there == {
            (name, key, digest_of(image)) for name, images in held.items() for key, image in images.items()
        }
        incoming.sound()
    assert sum(row["images"] for row in incoming.history()) == total == len(counted)


def picture(number: int) -> bytes:
    return png(np.random.default_rng(number).integers(0, 256, (8, 8)))


def write(path: Path, images: dict[str, bytes]) -> None:
    if path.suffix == ".parquet":
        write_parquet(path, [(name, image, 0) for name, image in images.items()], group=5)
    elif path.suffix == ".tar":
        write_members(path, [(f"{name}.png", image) for name, image in images.items()])
    else:
        shutil.rmtree(path, ignore_errors=True)
        write_folder(path, [(f"{name}.png", image, 0) for name, image in images.items()])


class Killed(RegradError):
    """The process is no more: nothing that it does from then on leaves a trace."""


@contextlib.contextmanager
def killed(at: int) -> Iterator[list[str]]:
    """Whatever the storage is told to write or remove fails from the ``at``-th on, which is not done.

    That is also a death right after the one before. Gives what was done.
    """
    done: list[str] = []
    begun = itertools.count()  # by several threads

    def dying(name: str) -> Callable[..., Any]:
        real = getattr(storage, name)

        def call(uri: str, *arguments: Any) -> Any:
            if "/lease/" in uri:
                return real(uri, *arguments)
            number = next(begun)
            if number >= at:
                raise Killed("killed")
            done.append(uri)
            real(uri, *arguments)

        return call

    with pytest.MonkeyPatch.context() as patched:
        for name in ("write_atomically", "remove", "remove_folder"):
            patched.setattr(storage, name, dying(name))
        yield done


def test_a_night_that_is_killed_anywhere_is_made_up_for(tmp_path: Path) -> None:
    """The same command again, and the next night instead, give what an undisturbed night gives."""
    inputs, output = tmp_path / "in", tmp_path / "out/audit"
    write(inputs / "a.parquet", {f"a{row}": picture(row) for row in range(6)})
    write(inputs / "b.parquet", {f"b{row}": picture(100 + row) for row in range(9)} | {"bad": b"bad"})
    write_folder(inputs / "camera", camera(0, 9))
    incoming = Incoming(tmp_path)
    incoming.sources = [str(inputs / name) for name in ("a.parquet", "b.parquet", "camera")]
    incoming.night("--night", "n1")
    (inputs / "camera" / camera(0, 9)[2][0]).unlink()
    write_folder(inputs / "camera", camera(9, 11))
    write(inputs / "a.parquet", {f"a{row}": picture(row) for row in range(4)} | {"new": picture(50)})
    write(inputs / "b.parquet", {f"b{row}": picture(100 + row) for row in range(12)} | {"bad": b"bad"})
    shutil.copytree(output, tmp_path / "before")
    at, names = 0, set[str]()
    while True:
        shutil.rmtree(output)
        shutil.copytree(tmp_path / "before", output)
        with killed(at) as done, contextlib.suppress(Killed):
            assert incoming.night("--night", "n2")[1] == 6
            break
        names |= {Path(name).parent.name for name in done}
        night = ("n2", "n3")[at % 2]
        found = incoming.audit("--night", night)[1]
        told = {row["night"]: (row["images"], row["quarantined_rows"]) for row in incoming.history()}
        expected = {"n1": (24, 1), "n2": (6, 0)}
        if night == "n3":
            expected = {"n1": (24, 1)} | ({"n3": (6, 0)} if "n2" not in told else {"n2": (6, 0), "n3": (0, 0)})
        assert told == expected, (at, done)
        assert found["images"] == expected[night][0]
        incoming.sound()
        at += 1
    assert {"retired", "scores", "quarantine", "ledger", "n2"} <= names
    assert at > 15
