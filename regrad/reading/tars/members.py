"""The members of a tar, one after the other: every one that is there, or an error that says what could not be read.

``tarfile`` takes a broken header, and the end mark between two tars that were joined, for the end of the archive: that
would lose rows without a word.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import tarfile
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from regrad.reading.samples import Shard

STREAM_BYTES = 2**20  # read at a time
TAIL_BYTES = 2**16
_PIECE_BYTES = 2**11  # decompressed at a time: few are lost where the rest is damaged
_MAX_EXTENSION_BYTES = 2**16  # of a long name or extended header; tarfile reads and searches it whole
_MAX_EXTENSIONS = 8  # in a row; tarfile calls itself for each
_EXTENSIONS = frozenset((tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, *tarfile.GNU_TYPES))
_COMPRESSIONS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,  # and then a digit and a block, see _unpacker: a member's name may begin so too
    b"\xfd7zXZ\0": lzma.LZMAFile,
    b"\x28\xb5\x2f\xfd": lambda file: _Zstandard(file),
}
_BZIP2_BLOCKS = (b"1AY&SY", b"\x17rE8P\x90")  # what follows the digit: a block, or the end of an empty file


class CorruptTar(Exception):
    """The tar goes on with something that is no member."""


class CorruptEnd(CorruptTar):
    """What goes wrong comes after a whole member, to whose sample no other member belongs."""


class NoEndMark(CorruptEnd):
    """It ends after a whole member, as one that was cut there would."""

    def __init__(self) -> None:
        super().__init__(
            "it ends without a tar's end mark, so it may be cut short; write it again, or append 1,024 zero bytes if "
            "it is whole"
        )


class _StrictMember(tarfile.TarInfo):
    """A tar member that is what its header says."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _StrictMember:
        member = super().frombuf(buf, encoding, errors)
        member.check()
        if member.type in _EXTENSIONS and member.type != tarfile.GNUTYPE_SPARSE and member.size > _MAX_EXTENSION_BYTES:
            raise CorruptTar(f"damaged member header (it claims {member.size} bytes for a name)")
        return member

    def check(self) -> None:
        """Refuse what would send ``tarfile`` backwards in the file, or round a hole in it, for ever.

        Raises:
            CorruptTar: the size is negative, or the pieces of a sparse file overlap or lie outside it.
        """
        if self.size < 0:
            raise CorruptTar(f"damaged member header (it claims {self.size} bytes)")
        if self.sparse is None:
            return
        pieces: Any = self.sparse
        self.sparse: Any = [(start, size) for start, size in pieces if size]  # places that are not used hold zeros
        end = 0
        for start, size in pieces:
            if size and not end <= start <= start + size <= self.size:
                raise CorruptTar(f"damaged member header (a piece of a sparse file at {start}, of {size} bytes)")
            end = max(end, start + size)

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _StrictMember:
        depth = getattr(archive, "extensions", 0)
        if depth > _MAX_EXTENSIONS:
            raise CorruptTar(f"damaged member header (more than {_MAX_EXTENSIONS} names for one member)")
        archive.extensions = depth + 1  # type: ignore[attr-defined]
        ended = False
        try:
            while True:
                try:
                    member = super().fromtarfile(archive)
                    member.check()  # an extended header may have set another size
                    return member
                except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # zeros: the end mark, or what fills it up
                    ended = True
        except tarfile.EmptyHeaderError as error:  # type: ignore[attr-defined]
            if ended:
                raise tarfile.EOFHeaderError("end of file") from error  # type: ignore[attr-defined]
            raise NoEndMark from error
        except (tarfile.HeaderError, ValueError) as error:
            if ended:
                raise CorruptEnd("what comes after its end mark is no tar, and was not read; cut it off") from error
            raise CorruptTar(f"damaged member header ({error})") from error
        finally:
            archive.extensions = depth  # type: ignore[attr-defined]


class _Zstandard:
    """A Zstandard file, by Arrow's library; Python's own comes with 3.14."""

    def __init__(self, file: Any):
        self._file = pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd")

    def read1(self, size: int) -> bytes:
        """Up to ``size`` bytes, none at the end."""
        content: bytes = self._file.read(size)
        return content


class _Unpacked:
    """What a decompressor gives, in pieces: where one is damaged, those before it are sound."""

    def __init__(self, file: Any):
        self._file = file

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes."""
        return bytes(self._file.read1(min(size, _PIECE_BYTES)))


class Window:
    """Some bytes of an uncompressed tar as one of its own: from one member up to another, with an end mark after it.

    It is read from its begin to its end.

    Args:
        begin: the first byte, of a member's header.
        end: the byte after the last, of another one's; None: to the end of the shard, with whatever is there.
    """

    def __init__(self, shard: Shard, begin: int, end: int | None):
        self._shard = shard
        self._content = (shard.size if end is None else end) - begin
        self.size = self._content + (0 if end is None else 2 * tarfile.BLOCKSIZE)
        self._place = 0
        shard.seek(begin)

    def read(self, size: int = -1) -> bytes:
        """As of a file."""
        left = self.size - self._place
        size = left if size < 0 else min(size, left)
        inside = max(0, min(size, self._content - self._place))
        content = self._shard.read(inside) if inside else b""
        if len(content) == inside:  # else the shard is shorter than it was, and no zeros shall hide it
            content += bytes(size - inside)
        self._place += len(content)
        return content


def is_compressed(shard: Shard) -> bool:
    """Whether a shard, read from its start, is compressed."""
    return _unpacker(shard) is not None


def _unpacker(shard: Shard) -> Callable[[Any], Any] | None:
    shard.seek(0)
    begin = shard.read(10)
    shard.seek(0)
    if begin.startswith(b"BZh") and not begin.endswith(_BZIP2_BLOCKS):
        return None
    return next((unpack for magic, unpack in _COMPRESSIONS.items() if begin.startswith(magic)), None)


@contextlib.contextmanager
def open_archive(shard: Shard | Window, seek: bool) -> Iterator[tuple[tarfile.TarFile, int | None]]:
    """The tar in ``shard``, whatever it is compressed by and called; a window of one is not compressed.

    Args:
        seek: go from header to header where that is possible, instead of reading all that lies between. The size of the
            tar is then given too, else None.
    """
    unpack = None if isinstance(shard, Window) else _unpacker(shard)
    seek = seek and unpack is None and not isinstance(shard, Window)
    with tarfile.open(
        fileobj=_Unpacked(unpack(shard)) if unpack else shard,
        mode="r:" if seek else "r|",
        tarinfo=_StrictMember,
        encoding="utf-8",
        errors="backslashreplace",  # an id must be valid UTF-8
        bufsize=STREAM_BYTES,
    ) as archive:  # type: ignore[call-overload]
        yield archive, shard.size if seek else None


def members(archive: Any, size: int | None) -> Iterator[tarfile.TarInfo]:
    """The members of ``archive``, also of one that follows its end mark; ``size`` as :func:`open_archive` gave it.

    What is left of one is read over here: past the end, tarfile would go on for ever.

    Raises:
        CorruptTar, tarfile.TarError, OSError: the tar, or the storage, goes wrong here.
    """
    for member in archive:
        archive.members.clear()  # it would keep every header
        yield member
        missing = max(0, archive.offset - size) if size is not None else _read_over(archive)
        if missing >= tarfile.BLOCKSIZE or (missing and not member.isfile()):
            raise CorruptTar("it ends inside a member")
        if missing:
            raise NoEndMark  # all of it is there, but for the zeros that fill up its last block


def _read_over(archive: Any) -> int:
    """Read on to the next header; returns the bytes that are not there."""
    while (left := archive.offset - archive.fileobj.tell()) > 0:
        if not archive.fileobj.read(min(left, STREAM_BYTES)):
            return int(left)
    return 0


def last_name(shard: Shard) -> str | None:
    """The name of the last member of an uncompressed tar, if it is small, from the last bytes of the file alone."""
    shard.seek(max(0, shard.size - TAIL_BYTES) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE)
    tail = shard.read(TAIL_BYTES + tarfile.BLOCKSIZE)
    for start in range(len(tail) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE, -1, -tarfile.BLOCKSIZE):
        with contextlib.suppress(tarfile.HeaderError, CorruptTar):
            member = _StrictMember.frombuf(tail[start : start + tarfile.BLOCKSIZE], "utf-8", "backslashreplace")
            if member.type not in _EXTENSIONS:
                return member.name
    return None
