"""Which images stand for which set: a seeded order of a pack or of torchvision's copy, cut into small shards."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from PIL import Image, ImageOps

from regrad import storage
from regrad.errors import UsageError

SHARD_ROWS = 50  # images that are lost at most when a run is stopped
ORDER_SEED = 0
Encoded = tuple[str, bytes, int]  # id, image file, label


@dataclass(frozen=True)
class ImageSet:
    """Images under one name.

    Attributes:
        title: as tables call it.
        pack: the Parquet file of the data folder that holds it (columns ``id``, ``image``, ``label``).
        download: class of torchvision.datasets and its arguments, where the pack is missing.
        inverted: black and white change places: strokes are white on black, as in MNIST.
        without: classes that are left out, since another set has the same things: labels, or names of the file
            ``tinyimagenet-classes.csv`` that lies beside the pack.
    """

    title: str
    pack: str
    download: tuple[str, dict[str, Any]] | None = None
    inverted: bool = False
    without: tuple[int | str, ...] = ()


# Classes of Tiny ImageNet that CIFAR-10 has too: cats, dogs, frogs and what drives on roads.
_LIKE_CIFAR10 = """bullfrog, tailed frog, Chihuahua, Yorkshire terrier, golden retriever, Labrador retriever,
    German shepherd, standard poodle, tabby, Persian cat, Egyptian cat, beach wagon, convertible, limousine,
    moving van, police van, school bus, sports car, trolleybus"""
# The same for CIFAR-100, generously read.
_LIKE_CIFAR100 = """goldfish, American alligator, boa constrictor, black widow, tarantula, snail, American lobster,
    spiny lobster, brown bear, lion, cougar, ladybug, bee, cockroach, monarch, sulphur butterfly, guinea pig, ox, bison,
    Arabian camel, chimpanzee, orangutan, African elephant, lesser panda, dugong, beer bottle, pop bottle, pill bottle,
    water jug, steel arch bridge, suspension bridge, viaduct, trolleybus, bullet train, freight car, school bus,
    moving van, police van, beach wagon, computer keyboard, lampshade, lawn mower, desk, dining table, rocking chair,
    pay-phone, tractor, projectile, barn, thatch, mushroom, orange, bell pepper, plate, espresso, alp, cliff, lakeside,
    stopwatch"""


def _names(text: str) -> tuple[str, ...]:
    return tuple(" ".join(name.split()) for name in text.split(","))


IMAGE_SETS = {
    "mnist": ImageSet("MNIST", "mnist-test.parquet", ("MNIST", {"train": False})),
    "fmnist": ImageSet("FMNIST", "fmnist-test.parquet", ("FashionMNIST", {"train": False})),
    "omniglot": ImageSet("Omniglot", "omniglot-evaluation.parquet", ("Omniglot", {"background": False}), True),
    "cifar10": ImageSet("C10", "cifar10-test.parquet", ("CIFAR10", {"train": False})),
    "cifar100": ImageSet("C100", "cifar100-test.parquet", ("CIFAR100", {"train": False})),
    "svhn": ImageSet("SVHN", "svhn-test.parquet", ("SVHN", {"split": "test"})),
    "lsun": ImageSet("LSUN", "lsun-test.parquet"),
    "cifar100-not-cifar10": ImageSet("C100", "cifar100-test.parquet", ("CIFAR100", {"train": False}), without=(58,)),
    "cifar10-not-cifar100": ImageSet("C10", "cifar10-test.parquet", ("CIFAR10", {"train": False}), without=(1, 9)),
    "tinyimagenet-not-cifar10": ImageSet("TinyImageNet", "tinyimagenet-val.parquet", without=_names(_LIKE_CIFAR10)),
    "tinyimagenet-not-cifar100": ImageSet(
        "TinyImageNet",
        "tinyimagenet-val.parquet",
        without=_names(_LIKE_CIFAR100),
    ),
}


def shards(name: str, data: str, folder: str, images: int, download: bool = False) -> list[str]:
    """URIs of Parquet shards with the first ``images`` images of a set, in a seeded order; written where missing.

    More images are the same ones and then others, so what was scored of the first is not scored again.

    Args:
        name: of :data:`IMAGE_SETS`.
        data: folder or URI of the packs.
        folder: where the shards of all sets go.
        images: how many; rounded up to whole shards, or all there are.
        download: fetch a missing pack by torchvision.

    Raises:
        UsageError: there is neither a pack nor a download.
    """
    place = storage.join(folder, name)
    held = set(storage.list_files(place, ".parquet"))
    names = [f"part-{number:03}.parquet" for number in range(-(-images // SHARD_ROWS))]
    if missing := [part for part in names if part not in held]:
        rows = _rows(IMAGE_SETS[name], data, folder, download)
        order = np.random.default_rng(ORDER_SEED).permutation(len(rows))
        for part in missing:
            start = names.index(part) * SHARD_ROWS
            chosen = [rows[row] for row in order[start : start + SHARD_ROWS]]
            if chosen:
                storage.write_atomically(storage.join(place, part), _parquet(chosen, IMAGE_SETS[name].inverted))
        held = set(storage.list_files(place, ".parquet"))
    return [storage.join(place, part) for part in names if part in held]


def available(name: str, data: str, download: bool) -> bool:
    """Whether the images of a set can be had."""
    found = IMAGE_SETS[name]
    return found.pack in storage.list_files(data, ".parquet") or (download and found.download is not None)


def pack(name: str, data: str) -> str:
    """The URI of a file of the data folder.

    Raises:
        UsageError: it is not there.
    """
    if name.rpartition("/")[2] not in storage.list_files(storage.join(data, *name.split("/")[:-1])):
        raise UsageError(f"{storage.mask(data)}: no {name} here; --data names the folder of the packs")
    return storage.join(data, name)


def _rows(found: ImageSet, data: str, folder: str, download: bool) -> list[Encoded]:
    if found.pack in storage.list_files(data, ".parquet"):
        table = pa.parquet.read_table(io.BytesIO(storage.read_bytes(storage.join(data, found.pack))))
        rows = zip(*(table[column].to_pylist() for column in ("id", "image", "label")), strict=True)
        every: Iterator[Encoded] = iter(rows)
    elif download and found.download:
        every = _downloaded(*found.download, f"{folder}/torchvision")
    else:
        raise UsageError(
            f"{storage.mask(data)}: no {found.pack} here; --data names the folder of the packs"
            + (", or --download fetches it by torchvision" if found.download else "")
        )
    left_out = _labels(found.without, data)
    return [row for row in every if row[2] not in left_out]


def _labels(classes: tuple[int | str, ...], data: str) -> set[int]:
    """The labels of ``classes``; a name is that of its first synonym."""
    if not any(isinstance(item, str) for item in classes):
        return {int(item) for item in classes}
    text = storage.read_bytes(storage.join(data, "tinyimagenet-classes.csv")).decode()
    known = {row["name"].split(",")[0]: int(row["label"]) for row in csv.DictReader(io.StringIO(text))}
    return {known[str(item)] for item in classes}


def _downloaded(kind: str, arguments: dict[str, Any], folder: str) -> Iterator[Encoded]:
    """The images of a torchvision dataset as PNG files."""
    import torchvision.datasets

    build: Callable[..., Any] = getattr(torchvision.datasets, kind)
    for row, (image, label) in enumerate(build(folder, download=True, **arguments)):
        yield f"{kind.lower()}/{row:05}", _png(image), int(label)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _parquet(rows: list[Encoded], inverted: bool) -> bytes:
    ids, images, labels = zip(*rows, strict=True)
    if inverted:
        images = tuple(_png(ImageOps.invert(Image.open(io.BytesIO(image)).convert("L"))) for image in images)
    columns = {"id": pa.array(ids), "image": pa.array(images, pa.binary()), "label": pa.array(labels, pa.int32())}
    sink = io.BytesIO()
    pa.parquet.write_table(pa.table(columns), sink, compression="zstd")
    return sink.getvalue()
