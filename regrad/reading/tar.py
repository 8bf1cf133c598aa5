"""WebDataset tars to samples."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import IO, Any

from regrad import storage
from regrad.reading.formats import Format, register
from regrad.reading.samples import MAX_IMAGE_BYTES, BadFile, Sample, Shard, as_label, as_text, is_image, reading

NO_SAMPLE = "no image in the tar"
_STREAM_BYTES = 2**20  # read at a time
_MAX_TEXT_BYTES = 2**24  # of a class or a JSON file
_MAX_EXTENSION_BYTES = 2**16  # of a long name or extended header; tarfile reads and searches it whole
_MAX_EXTENSIONS = 8  # in a row; tarfile calls itself for each
_EXTENSIONS = frozenset((tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, *tarfile.GNU_TYPES))
_LINKS = {tarfile.SYMTYPE: "a link", tarfile.LNKTYPE: "a link", tarfile.GNUTYPE_SPARSE: "a sparse file"}


class CorruptTar(Exception):
    """The tar goes on with something that is no member."""


class _StrictMember(tarfile.TarInfo):
    """A tar member; ``tarfile`` takes a broken header for the end of the archive, which would lose rows silently."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _StrictMember:
        member = super().frombuf(buf, encoding, errors)
        member.check()
        if member.type in _EXTENSIONS and member.type != tarfile.GNUTYPE_SPARSE and member.size > _MAX_EXTENSION_BYTES:
            raise CorruptTar(f"damaged member header (it claims {member.size} bytes for a name)")
        return member

    def check(self) -> None:
        """Refuse what would send ``tarfile`` backwards in the file, for ever.

        Raises:
            CorruptTar: the size is negative.
        """
        if self.size < 0:
            raise CorruptTar(f"damaged member header (it claims {self.size} bytes)")

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _StrictMember:
        depth = getattr(archive, "extensions", 0)
        if depth > _MAX_EXTENSIONS:
            raise CorruptTar(f"damaged member header (more than {_MAX_EXTENSIONS} names for one member)")
        archive.extensions = depth + 1  # type: ignore[attr-defined]
        try:
            member = super().fromtarfile(archive)
            member.check()  # an extended header may have set another size
            return member
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the end mark: two blocks of zeros
            raise
        except tarfile.EmptyHeaderError as error:  # type: ignore[attr-defined]
            raise CorruptTar("it ends without a tar's end mark, so it may be cut short") from error
        except (tarfile.HeaderError, ValueError) as error:
            raise CorruptTar(f"damaged member header ({error})") from error
        finally:
            archive.extensions = depth  # type: ignore[attr-defined]


def split_key(name: str) -> tuple[str, str]:
    """A member's WebDataset key and extension: the path is cut at the first dot of the base name.

    >>> split_key("./train/0001.seg.PNG")
    ('train/0001', 'seg.png')
    """
    name = name.removeprefix("./")
    folder, _, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return (f"{folder}/{stem}" if folder else stem), extension.lower()


@dataclass(frozen=True)
class _Refused:
    """A member that is there but is not read, and why."""

    why: str


_Fields = dict[str, bytes | _Refused]


@register
class TarReader(Format):
    """WebDataset: neighbouring members with one key are one sample; the row is the sample's position.

    Members are never written to disk, so their paths can do no harm, and only images, classes and JSON are read. Only
    reading tells how many samples there are, so a tar is always one unit.
    """

    kind = "tar"
    suffixes = (".tar", ".tar.gz", ".tgz")

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[Sample]:
        """The samples ``start <= row < stop``; what comes before ``start`` is read over."""
        row = -1
        try:
            shard = Shard(self.uri)
        except BadFile as problem:
            yield Sample(None, None, error=str(problem), stage="list")
            return
        with shard:
            try:
                for row, (key, fields) in enumerate(itertools.islice(self._groups(shard), stop)):
                    if row >= start:
                        yield self._sample(row, key, fields)
            except Exception as error:
                shard.raise_if_storage_failed()
                # The sample in hand is not whole, so it is lost too: "from row" names it.
                yield Sample(None, None, error=f"the tar cannot be read from row {row + 1} on: {storage.reason(error)}")
                return
        if row < 0 and stop != 0:
            yield Sample(None, None, error=NO_SAMPLE, stage="list")

    def count(self, at_most: int | None = None) -> tuple[int, float]:
        """The number of samples, from the headers alone, and the bytes one takes; stops at ``at_most`` samples.

        A damaged tar counts up to the damage.
        """
        rows, end = 0, 0
        with contextlib.suppress(BadFile), Shard(self.uri) as shard:
            try:
                for _ in itertools.islice(self._groups(shard, content=False), at_most):
                    rows += 1
                    end = shard.tell()
            except Exception:
                shard.raise_if_storage_failed()
        return rows, end / max(rows, 1)

    def is_empty(self) -> bool:
        """Whether it is a sound tar without a single sample."""
        return any(sample.error == NO_SAMPLE for sample in self.rows(0, 1))

    def copy(self, rows: Collection[int], file: IO[bytes]) -> int:
        """Every member of these samples, header and content as they were, in their order."""
        wanted, copied = frozenset(rows), set[int]()
        last = max(wanted)
        with reading(self.uri) as shard, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as target:
            # What comes after the last of them may be damaged, and is not asked for.
            for row, _, _, member, archive in itertools.takewhile(lambda item: item[0] <= last, self.members(shard)):
                if row in wanted:
                    copied.add(row)
                    _add(target, member, archive.extractfile(member) if member.isreg() else None)
        return len(copied)

    def members(self, shard: Shard, content: bool = True) -> Iterator[tuple[int, str, str, tarfile.TarInfo, Any]]:
        """Every member that belongs to a sample: the sample's row and key, the extension, the member, the archive.

        Raises:
            CorruptTar, tarfile.TarError, OSError: the tar, or the storage, goes wrong here.
        """
        key: str | None = None
        row, seen = -1, set[str]()
        compressed = not self.uri.lower().endswith(".tar")
        # Counting seeks from header to header; reading takes the bytes as they come. An id must be valid UTF-8.
        mode = "r|*" if content or compressed else "r:"
        with tarfile.open(
            fileobj=shard, mode=mode, tarinfo=_StrictMember, errors="backslashreplace", bufsize=_STREAM_BYTES
        ) as archive:  # type: ignore[call-overload]
            for member in _members(archive, seekable=mode == "r:"):
                if member.isdir() or _is_litter(member.name):
                    continue
                new_key, extension = split_key(member.name)
                if not extension:
                    continue  # a README or a LICENSE beside the samples
                # A name that comes again begins a sample again: dropped, the row would be lost without a word.
                if new_key != key or extension in seen:
                    key, row, seen = new_key, row + 1, set()
                if self._needed(extension):
                    seen.add(extension)
                yield row, key, extension, member, archive

    def _groups(self, shard: Shard, content: bool = True) -> Iterator[tuple[str, _Fields]]:
        last, key = -1, ""
        fields: _Fields = {}
        for row, new_key, extension, member, archive in self.members(shard, content):
            if row != last and last >= 0:
                yield key, fields
            if row != last:
                last, key, fields = row, new_key, {}
            if self._needed(extension):
                held = sum(len(field) for field in fields.values() if isinstance(field, bytes))
                fields[extension] = self._content(archive, member, extension, held) if content else b""
        if last >= 0:
            yield key, fields

    def _content(
        self, archive: tarfile.TarFile, member: tarfile.TarInfo, extension: str, held: int
    ) -> bytes | _Refused:
        kind = tarfile.GNUTYPE_SPARSE if member.issparse() else member.type
        if kind in _LINKS or not member.isfile():
            return _Refused(f"{as_text(member.name)!r} is {_LINKS.get(kind, 'no regular file')}, which is not read")
        most = MAX_IMAGE_BYTES if extension == self.columns.image or is_image(extension) else _MAX_TEXT_BYTES
        if member.size > most or held + member.size > MAX_IMAGE_BYTES:  # a key may have any number of members
            return _Refused(f"{as_text(member.name)!r} claims {member.size} bytes, more than {most}")
        file = archive.extractfile(member)
        return file.read() if file else b""

    def _needed(self, extension: str) -> bool:
        wanted = {"cls", "json", self.columns.image, self.columns.label, self.columns.id}
        return extension in wanted or (self.columns.image is None and is_image(extension))

    def _sample(self, row: int, key: str, fields: _Fields) -> Sample:
        if not key.rpartition("/")[2]:
            return Sample(row, None, error="a member without a key: its name begins with a dot")
        details = _json_object(fields.get("json"))
        name = as_text(key)
        if self.columns.id is not None:
            value = _text(fields.get(self.columns.id))
            value = details.get(self.columns.id) if value is None else value
            if value is None:
                return Sample(row, name, error=f"no {self.columns.id!r} field to take the id from (--id-column)")
            name = as_text(value)
        image = self._image(fields)
        if isinstance(image, _Refused):
            return Sample(row, name, error=image.why)
        if image is None:
            what = f".{self.columns.image} member" if self.columns.image else "image member"
            return Sample(row, name, error=f"no {what} under this key; it has {', '.join(sorted(fields)) or 'none'}")
        return Sample(row, name, image, self._label(fields, details))

    def _image(self, fields: _Fields) -> bytes | _Refused | None:
        if self.columns.image is not None:
            return fields.get(self.columns.image)
        # `0001.jpg` goes before `0001.seg.png`: the shortest extension is the sample's own picture.
        names = sorted((name for name in fields if is_image(name)), key=lambda name: (name.count("."), name))
        return fields[names[0]] if names else None

    def _label(self, fields: _Fields, details: dict[str, Any]) -> int | None:
        text = _text(fields.get(self.columns.label or "cls"))
        return as_label(details.get(self.columns.label or "label") if text is None else text)


def _members(archive: Any, seekable: bool) -> Iterator[tarfile.TarInfo]:
    """The members of ``archive``. What is left of one is read over here: past the end, tarfile would go on for ever."""
    for member in archive:
        archive.members.clear()  # it would keep every header
        yield member
        while not seekable and (left := archive.offset - archive.fileobj.tell()) > 0:
            if not archive.fileobj.read(min(left, _STREAM_BYTES)):
                raise CorruptTar("it ends inside a member")


def _add(target: tarfile.TarFile, member: tarfile.TarInfo, content: IO[bytes] | None) -> None:
    info = copy.copy(member)
    if member.issparse():  # written out whole: what a reader gets is the same
        info.type, info.sparse = tarfile.REGTYPE, None
    target.addfile(info, content)


def _is_litter(name: str) -> bool:
    """Files that archivers of desktops add: AppleDouble and folder settings."""
    base = name.rpartition("/")[2]
    return base.startswith("._") or base == ".DS_Store"


def _text(content: bytes | _Refused | None) -> str | None:
    return content.decode("utf-8", "replace").strip() if isinstance(content, bytes) else None


def _json_object(content: bytes | _Refused | None) -> dict[str, Any]:
    try:
        value = json.loads(content) if isinstance(content, bytes) and content else {}
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
