"""Where the images come from: Parquet packs of a data folder, or torchvision's copies by download."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet
from PIL import Image

from regrad import storage
from regrad.errors import UsageError

Encoded = tuple[str, bytes, int]  # id, image file, label
#: Pack -> the class of torchvision.datasets that has the same images, and its arguments. LSUN has no download there.
DOWNLOADS: dict[str, tuple[str, dict[str, Any]]] = {
    "mnist-train.parquet": ("MNIST", {"train": True}),
    "mnist-test.parquet": ("MNIST", {"train": False}),
    "fmnist-train.parquet": ("FashionMNIST", {"train": True}),
    "fmnist-test.parquet": ("FashionMNIST", {"train": False}),
    "omniglot-evaluation.parquet": ("Omniglot", {"background": False}),
    "cifar10-train.parquet": ("CIFAR10", {"train": True}),
    "cifar10-test.parquet": ("CIFAR10", {"train": False}),
    "cifar100-trainsubset.parquet": ("CIFAR100", {"train": True}),
    "cifar100-test.parquet": ("CIFAR100", {"train": False}),
    "svhn-train.parquet": ("SVHN", {"split": "train"}),
    "svhn-test.parquet": ("SVHN", {"split": "test"}),
}


@dataclass(frozen=True)
class Packs:
    """Files with the columns ``id``, ``image`` (a whole image file) and ``label``.

    Attributes:
        data: folder or URI that holds them.
        cache: where downloaded ones are kept.
        download: fetch what is in neither.
    """

    data: str
    cache: str
    download: bool = False

    def has(self, name: str) -> bool:
        """Whether :meth:`find` would find it."""
        held = any(name in storage.list_files(folder, ".parquet") for folder in (self.data, self.cache))
        return held or (self.download and name in DOWNLOADS)

    def find(self, name: str) -> str:
        """The URI of a pack, or of another file of the data folder such as ``weights/NAME.safetensors``.

        Raises:
            UsageError: it is not there, and cannot be or was not to be downloaded.
        """
        folder, _, file = name.rpartition("/")
        for place in (self.data, self.cache):
            if file in storage.list_files(storage.join(place, folder) if folder else place):
                return storage.join(place, name)
        if name in DOWNLOADS and self.download:
            uri = storage.join(self.cache, name)
            storage.write_atomically(uri, encode(list(_downloaded(*DOWNLOADS[name], f"{self.cache}/torchvision"))))
            return uri
        raise UsageError(
            f"{storage.mask(self.data)}: no {name} here; --data names the folder of the packs"
            + (", or --download fetches it by torchvision" if name in DOWNLOADS else "")
        )

    def rows(self, name: str) -> list[Encoded]:
        """All rows of a pack.

        Raises:
            UsageError: see :meth:`find`.
        """
        table = pa.parquet.read_table(io.BytesIO(storage.read_bytes(self.find(name))))
        return list(zip(*(table[column].to_pylist() for column in ("id", "image", "label")), strict=True))


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


def _downloaded(kind: str, arguments: dict[str, Any], folder: str) -> Iterator[Encoded]:
    import torchvision.datasets

    build: Callable[..., Any] = getattr(torchvision.datasets, kind)
    for row, (image, label) in enumerate(build(folder, download=True, **arguments)):
        yield f"{kind.lower()}/{row:05}", png(image), int(label)
