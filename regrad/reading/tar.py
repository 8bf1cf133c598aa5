"""WebDataset tars to samples."""

from __future__ import annotations

import contextlib
import copy
import json
import tarfile
from collections.abc import Collection, Iterator
from typing import IO, Any

from regrad import storage
from regrad.reading.formats import Extent, Format, register
from regrad.reading.naming import leftovers
from regrad.reading.naming.classes import whole_label
from regrad.reading.samples import BadFile, Sample, Shard, as_text, is_row_id, labelled, reading, row_id
from regrad.reading.tars.grouping import Grouping, TarRow, Unread
from regrad.reading.tars.members import CorruptTar, Window, members, open_archive
from regrad.reading.tars.survey import survey

NO_SAMPLE = "no image in the tar"
_APART = "lie apart from their images, so what they say was not read: sort the tar by name (tar --sort=name)"


@register
class TarReader(Format):
    """WebDataset: members with one key are one sample; rows are numbered as pictures come, see :mod:`.tars.grouping`.

    Members are never written to disk, so their paths can do no harm, and only images, classes and JSON are read. A
    large tar that is in order may be cut into units, see :mod:`.tars.survey`; of any other, only reading tells how many
    samples there are, and it is one unit.
    """

    kind = "tar"
    suffixes = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[Sample]:
        """The samples ``start <= row < stop``; what comes before ``start``, in their extent, is read over."""
        grouping = self._grouping()
        extent = self.extent or Extent(0, 0, None)
        ids, number = set[str](), extent.row
        try:
            shard = Shard(self.uri)
        except BadFile as problem:
            yield Sample(None, None, error=str(problem), stage="list")
            return
        with shard:
            try:
                tar = Window(shard, extent.begin, extent.end) if self.extent else shard
                for number, row in enumerate(grouping.rows(tar, content=True), extent.row):
                    if number == stop:
                        return
                    sample = self._sample(number, row, ids)
                    if number >= start:
                        yield sample
                    number += 1
            except Exception as error:
                shard.raise_if_storage_failed()
                if not number and (instead := shard.instead()):
                    yield Sample(None, None, error=f"not readable as a tar: {instead}", stage="list")
                    return
                why = str(error) if isinstance(error, CorruptTar) else storage.reason(error)
                # The sample in hand is not whole, so it is lost too: "from row" names it.
                yield Sample(None, None, error=f"the tar cannot be read from row {number} on: {why}")
                return
        if grouping.apart:
            first = as_text(grouping.first_apart)
            yield Sample(None, None, error=f"{grouping.apart} members (the first is {first!r}) {_APART}")
        elif not number and stop != 0:
            yield Sample(None, None, error=f"{NO_SAMPLE}{leftovers.instead(self.skipped)}", stage="list")

    def count(self, at_most: int | None = None) -> tuple[int, float]:
        """The number of samples, from the headers alone, and the bytes one takes; stops at ``at_most`` samples.

        A damaged tar counts up to the damage.
        """
        grouping = self._grouping()
        rows, end = 0, 0
        with contextlib.suppress(BadFile), Shard(self.uri) as shard:
            try:
                for _ in grouping.rows(shard, content=False):
                    if rows == at_most:
                        break
                    rows += 1
                    end = shard.tell()
            except Exception:
                shard.raise_if_storage_failed()
        return rows, end / max(rows, 1)

    def length(self) -> int | None:
        """How many samples there are, of a large tar that may be cut; also sets :attr:`marks` and :attr:`whole`."""
        surveyed = survey(self.uri, self.columns, self.size)
        self.marks, self.whole = surveyed.marks, surveyed.whole
        return surveyed.rows

    def is_empty(self) -> bool:
        """Whether it is a sound tar without a single sample."""
        return any((sample.error or "").startswith(NO_SAMPLE) for sample in self.rows(0, 1))

    def copy(self, rows: Collection[int], file: IO[bytes]) -> int:
        """Every member of these samples, header and content as they were, in their order.

        The headers are read first, to know which members make up a sample.
        """
        copied, places = self._places(frozenset(rows))
        last = max(places, default=-1)
        with (
            reading(self.uri) as shard,
            open_archive(shard, seek=False) as (archive, size),
            tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as target,
        ):
            for place, member in enumerate(members(archive, size)):
                if place in places:
                    _add(target, member, archive.extractfile(member) if member.isreg() else None)
                if place == last:  # what comes after it may be damaged, and is not asked for
                    break
        return copied

    def _places(self, wanted: Collection[int]) -> tuple[int, set[int]]:
        """How many of the ``wanted`` rows there are, and the places of their members in the tar."""
        grouping = self._grouping()
        rows: list[TarRow] = []
        with reading(self.uri) as shard:
            try:
                rows += (row for number, row in enumerate(grouping.rows(shard, content=False)) if number in wanted)
            except Exception:  # damaged from there on: what was scored comes before
                shard.raise_if_storage_failed()
        return len(rows), {place for row in rows for place in grouping.places(row)}

    def _grouping(self) -> Grouping:
        self.skipped.clear()
        return Grouping(self.uri, self.columns, self.skip)

    def _sample(self, number: int, row: TarRow, ids: set[str]) -> Sample:
        """The row as a sample; ``ids`` are those of the rows before it."""
        if row.key is None:
            return Sample(
                number, None, error=f"{as_text(row.name)!r} is a name without a key before its dot; rename it"
            )
        details = [_json_object(text) for text in row.texts("json")]
        name = row.key
        if (column := self.columns.id) is not None:
            value = next(iter(map(_decoded, row.texts(column.lower()))), _detail(details, column))
            if value is None:
                return Sample(number, as_text(name), error=f"no {column!r} field to take the id from (--id-column)")
            name = value
        name = as_text(name)
        if not name or name in ids or is_row_id(name):
            name = row_id(name, number)
        ids.add(name)
        if isinstance(row.picture, Unread):
            return Sample(number, name, error=row.picture.why, stage=row.picture.stage)
        if row.picture is None:
            what = f".{self.columns.image} member" if self.columns.image else "image member"
            return Sample(number, name, error=f"no {what} under this key; it has {', '.join(sorted(row.fields))}")
        return labelled(Sample(number, name, row.picture), self._label(row, details), self.columns.classes)

    def _label(self, row: TarRow, details: list[dict[str, Any]]) -> Any:
        column = self.columns.label
        text = next(iter(map(_decoded, row.texts((column or "cls").lower()))), None)
        if text is None:
            return _detail(details, column or "label")
        number = whole_label(text)  # which WebDataset means first of all, also where classes are called like numbers
        return text if number is None else number


def _add(target: tarfile.TarFile, member: tarfile.TarInfo, content: IO[bytes] | None) -> None:
    info = copy.copy(member)
    if member.issparse():  # written out whole: what a reader gets is the same
        info.type, info.sparse = tarfile.REGTYPE, None
        info.pax_headers = {key: text for key, text in info.pax_headers.items() if not key.startswith("GNU.sparse.")}
    target.addfile(info, content)


def _decoded(content: bytes) -> str:
    return content.decode("utf-8", "replace").strip()


def _json_object(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content) if content else {}
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _detail(objects: list[dict[str, Any]], name: str) -> Any:
    """The field ``name`` of the first that has it."""
    return next((value for item in objects if (value := item.get(name)) is not None), None)
