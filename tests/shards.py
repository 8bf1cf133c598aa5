"""Small real pictures (scikit-learn's digits) in every form the jobs read, and networks that take them."""

from __future__ import annotations

import functools
import io
import json
import os
import tarfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch
from PIL import Image
from torch import Tensor, nn

from regrad.pipeline.results import Committed, UnitResult

Row = tuple[str, bytes, int]  # id, encoded image, label


def records_of(results: Iterable[UnitResult]) -> list[dict[str, Any]]:
    """The ledger records of the units that were committed."""
    return [result.record for result in results if isinstance(result, Committed)]


@functools.cache
def digits(count: int = 60) -> list[Row]:
    """The first digits of scikit-learn as PNG files; ids carry their class, as files in class folders do."""
    from sklearn.datasets import load_digits  # a second, that workers, which load networks, need not wait

    data = load_digits()
    images, labels = data.images[:count], data.target[:count]
    return [
        (f"{label}/{row:04}.png", png(image * 15.9375), int(label))
        for row, (image, label) in enumerate(zip(images, labels, strict=True))
    ]


def png(pixels: np.ndarray) -> bytes:
    """A grey picture as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(pixels).round().clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(path: Path, rows: Sequence[Row], group: int = 20, **columns: Any) -> str:
    """Parquet with columns id, image, label, and more."""
    ids, images, labels = zip(*rows, strict=True)
    table = pa.table({"id": ids, "image": images, "label": pa.array(labels, pa.int32()), **columns})
    return _write(table, path, group)


def write_hugging_face(path: Path, rows: Sequence[Row], group: int = 20) -> str:
    """Parquet as the datasets library writes it: a struct {bytes, path} and no id column."""
    images = pa.array([{"bytes": image, "path": name} for name, image, _ in rows])
    return _write(pa.table({"img": images, "label": [label for *_, label in rows]}), path, group)


def _write(table: pa.Table, path: Path, group: int) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pa.parquet.write_table(table, path, row_group_size=group)
    return str(path)


def write_tar(path: Path, rows: Sequence[Row], mode: str = "w") -> str:
    """WebDataset: KEY.png, KEY.cls, KEY.json, where KEY is the id without its extension and the JSON has it whole."""
    members = []
    for name, image, label in rows:
        key = name.removesuffix(".png")
        members += [(f"{key}.png", image), (f"{key}.cls", str(label).encode())]
        members += [(f"{key}.json", json.dumps({"label": label, "name": name}).encode())]
    return write_members(path, members, mode)


def write_members(path: Path, members: Iterable[tuple[str, bytes]], mode: str = "w") -> str:
    """A tar of these files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return str(path)


def write_folder(path: Path, rows: Sequence[Row]) -> str:
    """The images as files under their ids."""
    for name, image, _ in rows:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(image)
    return str(path)


class Digits(nn.Module):
    """A small CNN with BatchNorm for 8x8 grey pictures and ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
        self.head = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))


class NotFinite(Digits):
    """Gives NaN on pictures that are white all over, and infinity on black ones."""

    def forward(self, x: Tensor) -> Tensor:
        logits, mean = super().forward(x), x.mean((1, 2, 3), keepdim=True)[:, 0, 0]
        return torch.where(mean > 0.99, torch.nan, torch.where(mean < -0.7499, torch.inf, logits))


class Slow(Digits):
    """Takes its time, and none of the processor's."""

    seconds = 0.3

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(self.seconds)
        return super().forward(x)


class Leisurely(Slow):
    """So that a run of a thousand images may be met in its middle."""

    seconds = 0.05


def build(network: type[nn.Module] = Digits, seed: int = 0) -> tuple[nn.Module, dict[str, Any]]:
    """The same network every time, whichever process asks."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return network(), {"image_size": 8, "channels": 1, "mean": 0.3, "std": 0.4}


NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def build_named() -> tuple[nn.Module, dict[str, Any]]:
    """The network of :func:`build` with the names of its classes."""
    network, known = build()
    return network, known | {"class_names": NAMES}


def build_renamed() -> tuple[nn.Module, dict[str, Any]]:
    """The same network, and another name for one of its classes."""
    network, known = build()
    return network, known | {"class_names": (*NAMES[:7], "cow", *NAMES[8:])}


def build_slow() -> tuple[nn.Module, dict[str, Any]]:
    """The network of :func:`build` that takes 0.3 s for a batch."""
    return build(Slow)


def build_leisurely() -> tuple[nn.Module, dict[str, Any]]:
    """The network of :func:`build` that takes 0.05 s for a batch."""
    return build(Leisurely)


def build_nan() -> tuple[nn.Module, dict[str, Any]]:
    """See NotFinite."""
    return build(NotFinite)


def one_logit() -> tuple[nn.Module, dict[str, Any]]:
    """A network with one number an image, as trained with a binary cross entropy."""
    network, known = build()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network.head = nn.Linear(128, 1)
    return network, known


class Deadly(Digits):
    """Ends its process on pictures that are white all over, as a decoder's fault would."""

    def forward(self, x: Tensor) -> Tensor:
        if bool((x.mean((1, 2, 3)) > 1.7).any()):
            os._exit(1)
        return super().forward(x)


def build_deadly() -> tuple[nn.Module, dict[str, Any]]:
    """See Deadly."""
    return build(Deadly)


def build_dying() -> tuple[nn.Module, dict[str, Any]]:
    """A factory that ends its process in workers only: what too little memory on a node looks like."""
    import ray

    if ray.is_initialized() and ray.get_runtime_context().worker.mode == 1:
        os._exit(1)
    return build()


def build_failing() -> tuple[nn.Module, dict[str, Any]]:
    """A factory that breaks in workers only: what a missing dependency on a node looks like."""
    import ray

    if ray.is_initialized() and ray.get_runtime_context().worker.mode == 1:
        raise ImportError("no module named special_kernels on this node")
    return build()


def invert(image: Tensor) -> Tensor:
    """For --transform."""
    return 1 - image
