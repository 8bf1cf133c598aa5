"""Where the images come from: Parquet packs of a data folder, or torchvision's copies by download."""

from __future__ import annotations

import io
import itertools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from PIL import Image

from regrad import storage
from regrad.errors import RegradError, UsageError

Encoded = tuple[str, bytes, int]  # id, image file, label
ORDER_SEED = 0


@dataclass(frozen=True)
class Download:
    """The first ``rows`` images, or all, of a class of torchvision.datasets with these arguments."""

    kind: str
    arguments: dict[str, Any]
    rows: int | None = None


@dataclass(frozen=True)
class Split:
    """The images of ``pack`` from ``start`` to ``stop`` in the seeded order of :func:`shuffled`."""

    pack: str
    start: int = 0
    stop: int | None = None


#: Packs that torchvision has the same images for. LSUN has no download there.
DOWNLOADS = {
    "mnist-train.parquet": Download("MNIST", {"train": True}),
    "mnist-test.parquet": Download("MNIST", {"train": False}),
    "fmnist-train.parquet": Download("FashionMNIST", {"train": True}),
    "fmnist-test.parquet": Download("FashionMNIST", {"train": False}),
    "omniglot-evaluation.parquet": Download("Omniglot", {"background": False}),
    "cifar10-train.parquet": Download("CIFAR10", {"train": True}),
    "cifar10-test.parquet": Download("CIFAR10", {"train": False}),
    "cifar100-trainsubset.parquet": Download("CIFAR100", {"train": True}),
    "cifar100-test.parquet": Download("CIFAR100", {"train": False}),
    "svhn-train.parquet": Download("SVHN", {"split": "train"}),
    "svhn-test.parquet": Download("SVHN", {"split": "test"}, rows=10_000),
}
#: Packs that are parts of another: what is trained on, and what is left to judge by.
SPLITS = {
    "svhn-held.parquet": Split("svhn-test.parquet", stop=2000),
    "svhn-pool.parquet": Split("svhn-test.parquet", start=2000),
}


def shuffled(rows: Sequence[Encoded]) -> list[Encoded]:
    """``rows`` in an order that depends on their number alone."""
    return [rows[place] for place in np.random.default_rng(ORDER_SEED).permutation(len(rows))]


@dataclass(frozen=True)
class Packs:
    """Files with the columns ``id``, ``image`` (a whole image file) and ``label``.

    Attributes:
        data: folder or URI that holds them.
        cache: where those are kept that are downloaded, or part of another.
        download: fetch what is in neither.
    """

    data: str
    cache: str
    download: bool = False

    def has(self, name: str) -> bool:
        """Whether :meth:`find` would find it."""
        held = any(name in storage.list_files(folder, ".parquet") for folder in (self.data, self.cache))
        whole = name in SPLITS and self.has(SPLITS[name].pack)
        return held or whole or (self.download and name in DOWNLOADS)

    def find(self, name: str) -> str:
        """The URI of a pack, made first where it can be, or of another file such as ``weights/NAME.safetensors``.

        Raises:
            UsageError: it is not there, and cannot be or was not to be downloaded.
            RegradError: the download failed.
        """
        folder, _, file = name.rpartition("/")
        for place in (self.data, self.cache):
            if file in storage.list_files(storage.join(place, folder) if folder else place):
                return storage.join(place, name)
        make = self._part if name in SPLITS else self._downloaded if name in DOWNLOADS and self.download else None
        if make is not None:
            uri = storage.join(self.cache, name)
            storage.write_atomically(uri, encode(make(name)))
            return uri
        raise UsageError(
            f"{storage.mask(self.data)}: no {name} here; --data names the folder of the packs"
            + (", or --download fetches it by torchvision" if name in DOWNLOADS else "")
        )

    def rows(self, name: str) -> list[Encoded]:
        """All rows of a pack.

        Raises:
            UsageError, RegradError: see :meth:`find`.
        """
        table = pa.parquet.read_table(io.BytesIO(storage.read_bytes(self.find(name))))
        return list(zip(*(table[column].to_pylist() for column in ("id", "image", "label")), strict=True))

    def _part(self, name: str) -> list[Encoded]:
        split = SPLITS[name]
        return shuffled(self.rows(split.pack))[split.start : split.stop]

    def _downloaded(self, name: str) -> list[Encoded]:
        """The rows of torchvision's copy; its archives are kept beside the packs, where these are in a local folder."""
        import torchvision.datasets

        wanted = DOWNLOADS[name]
        build: Callable[..., Any] = getattr(torchvision.datasets, wanted.kind)
        fs, path = storage.filesystem(storage.join(self.cache, "torchvision"))
        with tempfile.TemporaryDirectory() as temporary:
            try:
                dataset = build(path if storage.is_local(fs) else temporary, download=True, **wanted.arguments)
            except (OSError, RuntimeError) as error:  # RuntimeError: what it makes of several mirrors, or of a checksum
                raise RegradError(
                    f"{name}: torchvision could not download {wanted.kind} ({' '.join(str(error).split())}); "
                    f"run again with a network, or put {name} into {storage.mask(self.data)}"
                ) from error
            first = itertools.islice(dataset, wanted.rows)
            place = wanted.kind.lower()
            return [(f"{place}/{row:05}", png(image), int(label)) for row, (image, label) in enumerate(first)]


def encode(rows: Sequence[Encoded]) -> bytes:
    """``rows`` as a Parquet file."""
    ids, images, labels = zip(*rows, strict=True)
    columns = {"id": pa.array(ids), "image": pa.array(images, pa.binary()), "label": pa.array(labels, pa.int32())}
    sink = io.BytesIO()
    pa.parquet.write_table(pa.table(columns), sink, compression="zstd")
    return sink.getvalue()


def png(image: Image.Image) -> bytes:
    """``image`` as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
