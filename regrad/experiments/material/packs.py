"""Where the images come from: Parquet packs of a data folder, or torchvision's copies by download."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet
from PIL import Image

from regrad import storage
from regrad.errors import RegradError, UsageError

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
            RegradError: the download failed.
        """
        folder, _, file = name.rpartition("/")
        for place in (self.data, self.cache):
            if file in storage.list_files(storage.join(place, folder) if folder else place):
                return storage.join(place, name)
        if name in DOWNLOADS and self.download:
            uri = storage.join(self.cache, name)
            storage.write_atomically(uri, encode(self._downloaded(name)))
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

    def _downloaded(self, name: str) -> list[Encoded]:
        """The rows of torchvision's copy; its archives are kept beside the packs, where these are in a local folder."""
        import torchvision.datasets

        kind, arguments = DOWNLOADS[name]
        build: Callable[..., Any] = getattr(torchvision.datasets, kind)
        fs, path = storage.filesystem(storage.join(self.cache, "torchvision"))
        with tempfile.TemporaryDirectory() as temporary:
            try:
                dataset = build(path if storage.is_local(fs) else temporary, download=True, **arguments)
            except (OSError, RuntimeError) as error:  # RuntimeError: what it makes of several mirrors, or of a checksum
                raise RegradError(
                    f"{name}: torchvision could not download {kind} ({' '.join(str(error).split())}); "
                    f"run again with a network, or put {name} into {storage.mask(self.data)}"
                ) from error
            return [(f"{kind.lower()}/{row:05}", png(image), int(label)) for row, (image, label) in enumerate(dataset)]


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
