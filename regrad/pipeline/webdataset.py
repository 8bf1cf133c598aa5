"""WebDataset tars to samples."""

from __future__ import annotations

import itertools
import json
import tarfile
from collections.abc import Iterator
from typing import Any

from regrad import storage
from regrad.pipeline.samples import DEFAULT_COLUMNS, Columns, Sample, Shard, as_label, is_image


class CorruptTar(Exception):
    """The tar goes on with something that is no member."""


class _StrictMember(tarfile.TarInfo):
    """A tar member; ``tarfile`` takes a broken header for the end of the archive, which would lose rows silently."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _StrictMember:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the end mark: two blocks of zeros
            raise
        except tarfile.EmptyHeaderError as error:  # type: ignore[attr-defined]
            raise CorruptTar("it ends without a tar's end mark, so it may be cut short") from error
        except tarfile.HeaderError as error:
            raise CorruptTar(f"damaged member header ({error})") from error


def split_key(name: str) -> tuple[str, str]:
    """A member's WebDataset key and extension: the path is cut at the first dot of the base name.

    >>> split_key("./train/0001.seg.PNG")
    ('train/0001', 'seg.png')
    """
    name = name.removeprefix("./")
    folder, _, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return (f"{folder}/{stem}" if folder else stem), extension.lower()


class TarReader:
    """WebDataset: neighbouring members with one key are one sample; the row is the sample's position."""

    def __init__(self, uri: str, columns: Columns = DEFAULT_COLUMNS):
        self.uri = uri
        self.columns = columns

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[Sample]:
        """The samples ``start <= row < stop``; what comes before ``start`` is read over."""
        row = -1
        with Shard(self.uri) as shard:
            try:
                for row, (key, fields) in enumerate(itertools.islice(self._groups(shard), stop)):
                    if row >= start:
                        yield self._sample(row, key, fields)
            except Exception as error:
                shard.raise_if_storage_failed()
                # The sample in hand is not whole, so it is lost too: "from row" names it.
                yield Sample(None, None, error=f"the tar cannot be read from row {row + 1} on: {storage.reason(error)}")

    def count(self, at_most: int | None = None) -> tuple[int, float]:
        """The number of samples, from the headers alone, and the bytes one takes; stops at ``at_most`` samples.

        A damaged tar counts up to the damage.
        """
        rows, end = 0, 0
        with Shard(self.uri) as shard:
            try:
                for _ in itertools.islice(self._groups(shard, content=False), at_most):
                    rows += 1
                    end = shard.tell()
            except Exception:
                shard.raise_if_storage_failed()
        return rows, end / max(rows, 1)

    def _groups(self, shard: Shard, content: bool = True) -> Iterator[tuple[str, dict[str, bytes]]]:
        key: str | None = None
        fields: dict[str, bytes] = {}
        compressed = not self.uri.lower().endswith(".tar")
        # Counting seeks from header to header; reading takes the bytes as they come. An id must be valid UTF-8.
        mode = "r|*" if content or compressed else "r:"
        with tarfile.open(
            fileobj=shard, mode=mode, tarinfo=_StrictMember, errors="backslashreplace", bufsize=2**20
        ) as archive:  # type: ignore[call-overload]
            for member in archive:
                archive.members.clear()  # it would keep every header
                if not member.isfile() or _is_litter(member.name):
                    continue
                new_key, extension = split_key(member.name)
                if not extension:
                    continue  # a README or a LICENSE beside the samples
                if new_key != key:
                    if key is not None:
                        yield key, fields
                    key, fields = new_key, {}
                if extension not in fields and self._needed(extension):
                    file = archive.extractfile(member) if content else None
                    fields[extension] = file.read() if file else b""
        if key is not None:
            yield key, fields

    def _needed(self, extension: str) -> bool:
        wanted = {"cls", "json", self.columns.image, self.columns.label, self.columns.id}
        return extension in wanted or (self.columns.image is None and is_image(extension))

    def _sample(self, row: int, key: str, fields: dict[str, bytes]) -> Sample:
        if not key.rpartition("/")[2]:
            return Sample(row, None, error="a member without a key: its name begins with a dot")
        details = _json_object(fields.get("json"))
        name = key
        if self.columns.id is not None:
            value = _text(fields[self.columns.id]) if self.columns.id in fields else details.get(self.columns.id)
            if value is None:
                return Sample(row, key, error=f"no {self.columns.id!r} field to take the id from (--id-column)")
            name = str(value)
        image = self._image(fields)
        if image is None:
            what = f".{self.columns.image} member" if self.columns.image else "image member"
            return Sample(row, name, error=f"no {what} under this key; it has {', '.join(sorted(fields)) or 'none'}")
        return Sample(row, name, image, self._label(fields, details))

    def _image(self, fields: dict[str, bytes]) -> bytes | None:
        if self.columns.image is not None:
            return fields.get(self.columns.image)
        # `0001.jpg` goes before `0001.seg.png`: the shortest extension is the sample's own picture.
        names = sorted((name for name in fields if is_image(name)), key=lambda name: (name.count("."), name))
        return fields[names[0]] if names else None

    def _label(self, fields: dict[str, bytes], details: dict[str, Any]) -> int | None:
        if self.columns.label is not None:
            text = fields.get(self.columns.label)
            return as_label(_text(text) if text is not None else details.get(self.columns.label))
        return as_label(_text(fields["cls"]) if "cls" in fields else details.get("label"))


def _is_litter(name: str) -> bool:
    """Files that archivers of desktops add: AppleDouble and folder settings."""
    base = name.rpartition("/")[2]
    return base.startswith("._") or base == ".DS_Store"


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace").strip()


def _json_object(content: bytes | None) -> dict[str, Any]:
    try:
        value = json.loads(content) if content else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
