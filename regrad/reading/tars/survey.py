"""Where a large tar may be cut into units of work, so that many workers read it at once and a kill costs one unit.

A tar may be cut between two samples if every sample's members lie side by side and no two samples have one name, as
WebDataset asks of a tar: then what a piece of it gives is what reading all of it gives for these rows. One pass over
its headers tells (or an index that lies beside it), and what it found is remembered
(:mod:`regrad.reading.looked`). Any other tar is one unit, and :attr:`TarSurvey.whole` says why.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from dataclasses import dataclass

from regrad import storage
from regrad.reading.formats import Mark
from regrad.reading.samples import BadFile, Columns, Shard, as_text
from regrad.reading.tars import webdataset_index
from regrad.reading.tars.grouping import Grouping
from regrad.reading.tars.members import is_compressed, members, open_archive

SMALL_BYTES = 64 * 2**20  # smaller tars are one unit each, and are not looked into
# A store's tars are cut from here on only, where no index lies beside them: each must be read to its end for it. It is
# more than WebDataset's writers put into one shard unless they are told to.
REMOTE_BYTES = 4 * 2**30
MARK_ROWS = 128
MARK_BYTES = 64 * 2**20

COMPRESSED = "compressed"
DAMAGED = "damaged"
GLOBAL = "with headers for all that follows"
IDS = "with ids that only reading tells (--id-column)"
NAMES = "with a name that comes twice"
NO_INDEX = f"under {REMOTE_BYTES // 2**30} GiB in a store, without an index"
SCATTERED = "with samples whose members lie apart: sort it by name"


@dataclass(frozen=True)
class TarSurvey:
    """What is known of a tar without reading it.

    Attributes:
        rows: how many there are; None where only reading tells.
        marks: where reading may begin, at least ``MARK_ROWS`` rows or ``MARK_BYTES`` apart.
        whole: why it is one unit; empty of a small one.
    """

    rows: int | None = None
    marks: tuple[Mark, ...] = ()
    whole: str = ""


def survey(uri: str, columns: Columns, size: int) -> TarSurvey:
    """What the headers of a tar of ``size`` bytes tell.

    Raises:
        RegradError: the storage refused or failed.
    """
    if size < SMALL_BYTES:
        return TarSurvey()
    if columns.id is not None:
        return TarSurvey(whole=IDS)
    try:
        with Shard(uri) as shard:
            if is_compressed(shard):
                return TarSurvey(whole=COMPRESSED)
            if (indexed := webdataset_index.indexed_members(shard)) is not None:
                return _surveyed(uri, columns, indexed)
            if size < REMOTE_BYTES and not storage.is_local(storage.filesystem(uri)[0]):
                return TarSurvey(whole=NO_INDEX)
            try:
                with open_archive(shard, seek=True) as (archive, end):
                    surveyed = _surveyed(uri, columns, members(archive, end))
                    return TarSurvey(whole=GLOBAL) if archive.pax_headers else surveyed
            except Exception:
                shard.raise_if_storage_failed()
                return TarSurvey(whole=DAMAGED)
    except BadFile:  # reading it says why
        return TarSurvey(whole=DAMAGED)


def _surveyed(uri: str, columns: Columns, headers: Iterable[tarfile.TarInfo]) -> TarSurvey:
    grouping = Grouping(uri, columns, lambda reason: None)
    names = set[int]()
    marks = [Mark(0, 0)]
    count = begin = 0
    for row in grouping.of(headers):
        names.add(hash(count if row.key is None else as_text(row.key)))  # without a key it has no name at all
        far = count - marks[-1].row >= MARK_ROWS or row.begin - marks[-1].byte >= MARK_BYTES
        if far and row.begin != begin and count:  # the first row of its neighbours
            marks.append(Mark(count, row.begin))
        begin = row.begin
        count += 1
        if len(names) < count:
            return TarSurvey(whole=NAMES)
    if grouping.scattered:
        return TarSurvey(whole=SCATTERED)
    return TarSurvey(count, tuple(marks))
