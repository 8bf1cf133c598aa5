"""The members of a tar put together to samples, in whatever order they come.

A picture is given when the members after it belong to another sample. What says a label or an id may lie anywhere
before its picture, and waits for it. Where the first sample has none, the whole tar is looked through for what comes
after, if that costs little or the tar is visibly out of order; what is still found too late is named (:attr:`apart`),
never dropped without a word. The numbers of rows depend on names and sizes alone, not on what is read ahead.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

from regrad import storage
from regrad.reading.naming import keys, leftovers
from regrad.reading.naming.pictures import is_image, why_unread
from regrad.reading.samples import MAX_IMAGE_BYTES, Columns, Shard, as_text
from regrad.reading.tars.members import CorruptEnd, Window, is_compressed, last_name, members, open_archive

_MAX_TEXT_BYTES = 2**24  # of a class or a JSON file
_WAITING_BYTES = 2**26  # of all that wait for their pictures
_GROUP_BYTES = 2**24  # of pictures whose names begin alike, before the first of them are given
_LINKS = {
    tarfile.SYMTYPE: "a link, which is not read; write the tar with --dereference",
    tarfile.LNKTYPE: "a link, which is not read; write the tar with --hard-dereference",
}


@dataclass(frozen=True)
class Unread:
    """A member that is there but is not read, and why."""

    why: str
    stage: str = "read"


Content = bytes | Unread
Fields = dict[str, Content]
_Reads = Callable[[tarfile.TarInfo, bool, int], Content]  # a member, if it is a picture, the bytes that are held


@dataclass
class _Key:
    """The members of one key: those ``fields`` that are needed, and the places of all in the tar."""

    fields: Fields = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class TarRow:
    """A row of the tar.

    Attributes:
        name: of its picture, or its key.
        key: of the sample; None of a picture whose name has none.
        picture: its content; None where there is none.
        fields: of its key.
        near: where its texts may be, the nearest first, each with what their names begin with there.
        places: of the members beside its picture in the tar.
        keys: whose members are its own too, wherever they lie.
        begin: the first byte of the neighbours that it lies among.
    """

    name: str
    key: str | None
    picture: Content | None = None
    fields: tuple[str, ...] = ()
    near: tuple[tuple[str, Fields], ...] = ()
    places: tuple[int, ...] = ()
    keys: tuple[str, ...] = ()
    begin: int = 0

    def texts(self, name: str) -> Iterator[bytes]:
        """What the members ``name`` (``cls``, ``json``) of this sample hold, the nearest first."""
        for begin, fields in self.near:
            if isinstance(content := fields.get(begin + name), bytes):
                yield content


class Grouping:
    """Makes rows of a tar's members, once.

    Args:
        skip: is told of every member that is neither part of a row nor a folder, by reason.
        ahead: keep what comes after its picture too, instead of counting it as apart.

    Attributes:
        apart: how many members came after their pictures had been given.
        first_apart: the name of the first of them.
    """

    def __init__(self, uri: str, columns: Columns, skip: Callable[[str], None], ahead: bool = False):
        self._uri = uri
        self._columns = columns
        self._skip = skip
        self._image = columns.image.lower() if columns.image is not None else None
        named = (columns.label, columns.id)
        self._texts = {"cls", "json"} | {name.lower() for name in named if name is not None}
        self._waiting: dict[str, _Key] = {}  # without a picture so far
        self._waiting_bytes = 0
        self._keep = ahead
        self._known: frozenset[str] = frozenset()  # keys whose members were read ahead
        self._gone: set[str] = set()  # keys whose pictures were given
        self._begin = 0  # of the group in hand
        self.apart = 0
        self.first_apart = ""

    @property
    def scattered(self) -> bool:
        """Whether members of one sample lie apart from each other, or a sample has no picture, up to now."""
        return bool(self._waiting)

    def rows(self, shard: Shard | Window, content: bool) -> Iterator[TarRow]:
        """The rows, in order; without ``content`` from the headers alone.

        A window is of a tar of which no sample's members lie apart, so that it is looked at alone.

        Raises:
            CorruptTar, tarfile.TarError, OSError: the tar, or the storage, goes wrong here.
        """
        with open_archive(shard, seek=not content) as (archive, end):
            read = partial(_read, archive) if content else _leave
            yield from self.of(members(archive, end), read, look=content and not isinstance(shard, Window))
        for key, held in self._waiting.items():
            if key not in self._gone:
                yield TarRow(key, key, None, tuple(held.fields), (("", held.fields),))

    def places(self, row: TarRow) -> set[int]:
        """The places in the tar of all members of a row, once every row was given."""
        apart = (self._waiting[key].places.values() for key in row.keys if key in self._waiting)
        return {*row.places, *(place for places in apart for place in places)}

    def of(self, found: Iterable[tarfile.TarInfo], read: _Reads | None = None, look: bool = False) -> Iterator[TarRow]:
        """The rows whose pictures are among these members, in order; without ``read`` they have no content.

        Raises:
            what going through the members raises.
        """
        read = read or _leave
        group: dict[str, _Key] = {}
        name, size = "", 0
        try:
            for place, member in enumerate(found):
                key, field = keys.split_key(member.name)
                picture = self._is_picture(field)
                if member.isdir() or self._is_left_out(member.name, key, field, picture):
                    continue
                if not key.rpartition("/")[2]:
                    yield TarRow(member.name, None, begin=self._begin if group else member.offset)
                    continue
                needed = picture or field in self._texts or field.rpartition(".")[2] in self._texts
                if group and self._begins_anew(group, name, key, field if needed else "", size):
                    look = look and not self._look_ahead(group)
                    yield from self._close(group)
                    group, size = {}, 0
                if not group:
                    self._begin = member.offset
                name = keys.group(key)
                own = group.setdefault(key, _Key())
                own.places.setdefault(field, place)
                if needed:
                    own.fields[field] = read(member, picture, size)
                    size += member.size
                else:
                    self._skip(f"type not read: .{field.rpartition('.')[2]}")
        except CorruptEnd:
            yield from self._close(group)
            raise
        yield from self._close(group)

    def _is_left_out(self, name: str, key: str, field: str, picture: bool) -> bool:
        """Whether a member is part of no sample, which is then counted."""
        if why := leftovers.why_tools(name):
            self._skip(why)
        elif not field:
            self._skip(leftovers.NO_EXTENSION)
        elif leftovers.in_hidden_folder(name) or (not picture and not key.rpartition("/")[2]):
            self._skip(leftovers.HIDDEN)
        else:
            return False
        return True

    def _begins_anew(self, group: dict[str, _Key], name: str, key: str, needed: str, size: int) -> bool:
        """Whether the ``group`` called ``name`` has all its members before the next one."""
        if keys.group(key) != name:
            return True
        if key in group:
            # A name that comes again begins a sample again: dropped, the row would be lost without a word.
            return needed in group[key].fields
        return size > _GROUP_BYTES and not any(other.startswith(f"{key}.") for other in group)

    def _close(self, group: dict[str, _Key]) -> Iterator[TarRow]:
        """The rows of neighbours whose names begin alike."""
        pictures = {key: keys.pictures(held.fields, self._image) for key, held in group.items()}
        pictured = {other for key, names in pictures.items() if names for other in keys.ancestors(key)}
        for key, held in group.items():
            if held.fields and not pictures[key]:
                late = key in self._gone and key not in pictured and not self._keep
                self._wait(key, held, late)
        self._gone |= pictured
        for key, names in pictures.items():
            for other in group[key].fields:
                if self._is_picture(other) and other not in names:
                    self._skip(f"another picture of a sample: .{other}")
            for own in names:
                yield self._row(group[key], key, own, alone=len(names) == 1)

    def _row(self, held: _Key, key: str, field: str, alone: bool) -> TarRow:
        begin = field[: field.rfind(".") + 1]
        ancestors = keys.ancestors(key)
        near = [(begin, held.fields), ("", held.fields)]
        near += [("", self._waiting[other].fields) for other in ancestors if other in self._waiting]
        places = (
            place for other, place in held.places.items() if alone or other == field or not self._is_picture(other)
        )
        own = keys.picture_key(key, field, alone)
        picture, fields = held.fields[field], tuple(held.fields)
        return TarRow(f"{key}.{field}", own, picture, fields, tuple(near), tuple(places), tuple(ancestors), self._begin)

    def _wait(self, key: str, held: _Key, late: bool) -> None:
        """Keep what says a label or an id until its picture comes."""
        if key in self._known:
            return
        size = sum(len(content) for content in held.fields.values() if isinstance(content, bytes))
        if late or self._waiting_bytes + size > _WAITING_BYTES:
            self.first_apart = self.first_apart or f"{key}.{next(iter(held.fields))}"
            self.apart += len(held.fields)
            held = _Key(dict.fromkeys(held.fields, Unread("")), held.places)
        else:
            self._waiting_bytes += size
        waiting = self._waiting.setdefault(key, _Key())
        waiting.fields |= held.fields
        waiting.places |= held.places

    def _look_ahead(self, group: dict[str, _Key]) -> bool:
        """Read what says labels and ids in all of the tar, if the first ``group`` of neighbours lacks it.

        False: the group says nothing of how the tar was written.
        """
        fields = [field for held in group.values() for field in held.fields]
        pictures = sum(map(self._is_picture, fields))
        if 0 < pictures < len(fields) or not fields:
            return bool(fields)
        with Shard(self._uri) as shard:
            if not self._is_worth_looking(shard):
                return True
            ahead = Grouping(self._uri, self._columns, lambda reason: None, ahead=True)
            try:
                with open_archive(shard, seek=True) as (archive, end):
                    for _ in ahead.of(members(archive, end), partial(_read_text, archive)):
                        pass
            except Exception:  # said when the reading comes to it
                shard.raise_if_storage_failed()
        self._waiting, self._known = ahead._waiting, frozenset(ahead._waiting)
        self.apart, self.first_apart = ahead.apart, ahead.first_apart
        return True

    def _is_worth_looking(self, shard: Shard) -> bool:
        """Whether it costs little (headers of a local file), or the last member of the tar is no picture."""
        if storage.is_local(storage.filesystem(self._uri)[0]):
            return shard.size <= _WAITING_BYTES or not is_compressed(shard)
        last = last_name(shard)
        shard.seek(0)
        return last is not None and not self._is_picture(keys.split_key(last)[1])

    def _is_picture(self, field: str) -> bool:
        if self._image is not None:
            return field == self._image or field.endswith(f".{self._image}")
        return is_image(field)


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo, picture: bool, held: int) -> Content:
    if member.type in _LINKS or not member.isfile():
        return Unread(f"{as_text(member.name)!r} is {_LINKS.get(member.type, 'no regular file, which is not read')}")
    if picture and (why := why_unread(member.name)):
        return Unread(f"{as_text(member.name)!r}: {why}", "decode")
    most = MAX_IMAGE_BYTES if picture else _MAX_TEXT_BYTES
    if member.size > most or held + member.size > MAX_IMAGE_BYTES:  # a key may have any number of members
        return Unread(f"{as_text(member.name)!r} claims {member.size} bytes, more than {most}")
    file = archive.extractfile(member)
    return file.read() if file else b""


def _read_text(archive: tarfile.TarFile, member: tarfile.TarInfo, picture: bool, held: int) -> Content:
    return b"" if picture else _read(archive, member, picture, held)


def _leave(member: tarfile.TarInfo, picture: bool, held: int) -> Content:
    return b""
