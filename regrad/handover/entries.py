"""One image as it is handed over: what its file is called, where it is, and what the network makes of it."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from regrad.reading.naming.classes import Classes
from regrad.reading.naming.pictures import is_image
from regrad.runs.pairs import hashes
from regrad.runs.scored import Run

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_READABLE = 40  # characters of the id's own name
#: Files of ours, by how their names or paths end, with or without an ending.
OWN_FILE = r"(?:^|[-/\\])(?P<digest>[0-9a-f]{32})(?:\.\w{1,5})?$"


@dataclass(frozen=True, slots=True)
class Entry:
    """One image.

    Attributes:
        stem: what its file is called, without an ending: see :func:`stems`.
        place: of a copy, its path below the folder of the list; else the path or URI of the file that was scored.
        copied: whether it is a copy.
        width, height: in pixels, upright; 0 where the form does not ask for them.
        predicted: the name of the predicted class, and ``prediction`` its number.
        label: the name of the class that the dataset has; None: none, or nobody asked.
    """

    id: str
    source: str
    row: int
    stem: str
    place: str
    copied: bool
    width: int
    height: int
    prediction: int
    predicted: str
    confidence: float
    score: float
    label: str | None = None


@dataclass(frozen=True)
class About:
    """What a list is of.

    Attributes:
        score: the name of the score that goes along.
        classes: their names, each once.
        model: as it was named for the run.
        folder: that the list lies in, as a path or URI.
    """

    score: str
    classes: tuple[str, ...]
    model: str
    folder: str


def named_classes(run: Run) -> tuple[str, ...]:
    """The classes of the run's model by name, by number where they have none; of names that come twice, with it.

    ImageNet has two cranes, and no tool takes two labels of one name.
    """
    classes = Classes.of_run(run.info)
    names = classes.names or tuple(str(number) for number in range(classes.count or 0))
    times = Counter(names)
    return tuple(name if times[name] == 1 else f"{name} ({number})" for number, name in enumerate(names))


def stems(rows: pa.Table) -> list[str]:
    """What the files of images with this ``source`` and ``id`` are called, wherever and whenever they are handed over.

    NAME-DIGEST: of the id what is safe in any file system, and 128 bits of both that tell the image again: the 64-bit
    :func:`regrad.runs.pairs.hashes` of it and 64 of its BLAKE2b. No two images share one, and none leaves its folder.
    """
    keys = hashes(rows["source"], rows["id"])
    images = zip(keys.tolist(), rows["source"].to_pylist(), rows["id"].to_pylist(), strict=True)
    return [f"{_readable(name)}-{digest_of_image(key, source, name)}" for key, source, name in images]


def digest_of_image(key: int, source: str, name: str) -> str:
    """The last 32 characters of :func:`stems`, of an image with this 64-bit ``key``."""
    exact = hashlib.blake2b(f"{source}\n{name}".encode("utf-8", "surrogatepass"), digest_size=8)
    return f"{key:016x}{exact.hexdigest()}"


def _readable(name: str) -> str:
    base = name.rpartition("/")[2]
    base = base.rpartition(".")[0] if is_image(base) else base
    return _UNSAFE.sub("_", base).strip("._-")[:_READABLE] or "image"


def label_name(label: int | None, classes: Sequence[str]) -> str | None:
    """What a label of the score table is called; its number where it is no class of the model."""
    if label is None:
        return None
    return classes[label] if 0 <= label < len(classes) else str(label)
