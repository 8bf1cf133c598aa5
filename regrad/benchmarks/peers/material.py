"""The same images in the forms that the contenders read: a folder of files, Parquet with their URIs, and tars."""

from __future__ import annotations

import io
import itertools
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
from PIL import Image

from regrad.errors import UsageError
from regrad.reading.inputs import list_sources
from regrad.reading.samples import DEFAULT_COLUMNS


@dataclass(frozen=True)
class Material:
    """``images/NAME`` for every name; ``rows/*.parquet`` with the columns id and uri, and ``tars/*.tar`` of the files,
    ``some`` images in each.
    """

    folder: Path
    names: tuple[str, ...]
    some: int

    def truncate(self, name: str) -> None:
        """Half of the bytes of an image are gone."""
        path = self.folder / "images" / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        self.pack()

    def pack(self) -> None:
        """Write the tars of the files as they are."""
        for number, part in enumerate(_batched(self.names, self.some)):
            with tarfile.open(self.folder / "tars" / f"{number:05}.tar", "w") as tar:
                for name in part:
                    tar.add(self.folder / "images" / name, name)


def write_material(folder: Path, pictures: Sequence[str], count: int, some: int) -> Material:
    """The first ``count`` images of the shards ``pictures``, of which JPEGs stay as they are and others become PNGs.

    Raises:
        UsageError: the shards have fewer, or one of these is no image.
    """
    encoded = list(itertools.islice(_encoded(pictures), count))
    if len(encoded) < count:
        raise UsageError(f"{', '.join(pictures)}: {len(encoded)} images, where {count} are scored; give --images more")
    for form in ("images", "rows", "tars"):
        (folder / form).mkdir(parents=True)
    names = []
    for number, content in enumerate(encoded):
        suffix, content = _as_file(content)
        names.append(f"{number:05}.{suffix}")
        (folder / "images" / names[-1]).write_bytes(content)
    for number, part in enumerate(_batched(names, some)):
        uris = [str(folder / "images" / name) for name in part]
        pa.parquet.write_table(pa.table({"id": part, "uri": uris}), folder / "rows" / f"{number:05}.parquet")
    material = Material(folder, tuple(names), some)
    material.pack()
    return material


def _encoded(pictures: Sequence[str]) -> Iterator[bytes]:
    for source in list_sources(pictures, DEFAULT_COLUMNS):
        for sample in source.open().rows():
            if sample.image is None:
                raise UsageError(f"{source.uri}: row {sample.row}: {sample.error}")
            yield sample.image


def _as_file(content: bytes) -> tuple[str, bytes]:
    """The ending and bytes of a file that every contender reads."""
    with Image.open(io.BytesIO(content)) as picture:
        if picture.format == "JPEG":
            return "jpg", content
        sink = io.BytesIO()
        picture.convert("RGB").save(sink, "PNG")
        return "png", sink.getvalue()


def _batched(names: Sequence[str], some: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), some):
        yield names[start : start + some]
