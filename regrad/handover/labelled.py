"""Which images of a run have labels by now, of a list of ids or of what a tool for labelling gave back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from regrad import formatting, storage
from regrad.errors import UsageError
from regrad.handover.entries import OWN_FILE, digest_of_image, named_classes
from regrad.handover.take import RETURNED_SCHEMA, read_returned
from regrad.reading.naming.classes import Classes
from regrad.runs.pairs import hashes
from regrad.runs.scored import Bools, Ints, Run

# How an image may be told; each key begins with its kind, and is followed by it.
_BY_ID, _BY_BOTH, _BY_FILE, _BY_DIGEST = "id ", "both ", "file ", "digest "


class Labelled:
    """The images that have a label already.

    An image is told by its id, by source and id where the list names sources, or by its file: the name it was handed
    over under, its path or URI, or its id.

    Args:
        uris: of each, see :func:`regrad.handover.take.read_returned`.
        predictions: whether a prediction that came back as it was handed over, in a form that has one place for both,
            is a label that was accepted.

    Raises:
        UsageError: it cannot be read, or is of no form that is known.
    """

    def __init__(self, uris: Sequence[str] = (), predictions: bool = False):
        try:
            files = [(uri, *read_returned(uri)) for uri in uris]
        except UsageError as error:
            raise UsageError(f"--labelled {error}") from error
        self._files = ", ".join(f"{storage.mask(uri)} ({form})" for uri, form, _ in files)
        rows = pa.concat_tables([RETURNED_SCHEMA.empty_table(), *(table for *_, table in files)])
        labelled = pc.or_(rows["labelled"], rows["predicted"]) if predictions else rows["labelled"]
        labels = pc.if_else(labelled, rows["label"], None)
        told = pa.table([_keys_of(rows), labelled.cast(pa.int64()), labels], ["key", "labelled", "label"])
        counted = (
            told.filter(pc.is_valid(told["key"]))
            .group_by("key")
            .aggregate([("labelled", "sum"), ("label", "count_distinct"), ("label", "min")])
        )
        times, kinds = counted["labelled_sum"].to_numpy(), counted["label_count_distinct"].to_numpy()
        there = pa.array(times > 0)
        self._keys = counted["key"].filter(there).combine_chunks()
        self._labels = pc.if_else(pa.array(kinds == 1), counted["label_min"], None).filter(there)
        self._seen = np.zeros(len(self._keys), bool)
        self.without = int((times == 0).sum())
        self.twice = int((times > 1).sum())
        self.differently = int(((times > 1) & (kinds > 1)).sum())
        self._kinds = {kind for kind in (_BY_ID, _BY_BOTH, _BY_FILE, _BY_DIGEST) if self._has(kind)}
        self._hashes = np.array([int(key[:16], 16) for key in self._of(_BY_DIGEST)], np.uint64)

    def __len__(self) -> int:
        return len(self._keys)

    def contains(self, rows: pa.Table) -> Bools:
        """(n,) which of ``rows`` (with ``id`` and ``source``) are labelled; these are known from now on."""
        return self._look(rows)[0]

    def labels(self, rows: pa.Table) -> pa.ChunkedArray:
        """(n,) the names of their labels; null where there is none, or where the lists do not agree on one."""
        labelled, told = self._look(rows)
        return self._labels.take(pa.array(told, mask=~labelled))

    def _look(self, rows: pa.Table) -> tuple[Bools, Ints]:
        """(n,) which of the rows are labelled, and (n,) the place of the key that says so."""
        labelled: Bools = np.zeros(len(rows), bool)
        told: Ints = np.zeros(len(rows), np.int64)
        for key in self._ways(rows):
            places = pc.index_in(key, value_set=self._keys).to_numpy(zero_copy_only=False)
            there = ~np.isnan(places)
            labelled |= there
            told[there] = places[there].astype(np.int64)
            self._seen[told[there]] = True
        return labelled, told

    def summary(self) -> str:
        """What the file said, once all rows of the run have been looked at."""
        count = formatting.count
        told = {
            f"{count(self.without, 'image')} without a label": self.without,
            f"{len(self) - int(self._seen.sum())} that the run does not have": not self._seen.all(),
            f"{self.twice} labelled more than once, {self.differently} of them differently": self.twice,
        }
        also = "".join(f", {words}" for words, there in told.items() if there)
        return f"--labelled {self._files}: {count(len(self), 'labelled image')}{also}"

    def _ways(self, rows: pa.Table) -> Iterator[pa.ChunkedArray]:
        """(n,) the keys that ``rows`` may be told by, for each way that the file tells any."""
        ids, sources = rows["id"].cast(pa.string()), rows["source"].cast(pa.string())
        if _BY_ID in self._kinds:
            yield _key(_BY_ID, ids)
        if _BY_BOTH in self._kinds:
            yield _key(_BY_BOTH, sources, ids)
        if _BY_FILE in self._kinds:
            yield _key(_BY_FILE, ids)
            folders = pc.utf8_rtrim(sources, characters="/")
            yield _key(_BY_FILE, pc.binary_join_element_wise(folders, ids, "/"))
        if _BY_DIGEST in self._kinds:
            yield self._digests(ids, sources)

    def _digests(self, ids: pa.ChunkedArray, sources: pa.ChunkedArray) -> pa.Array:
        keys = hashes(sources, ids)
        told: list[str | None] = [None] * len(keys)
        for place in np.flatnonzero(np.isin(keys, self._hashes)):
            exact = digest_of_image(int(keys[place]), sources[place].as_py(), ids[place].as_py())
            told[place] = f"{_BY_DIGEST}{exact}"
        return pa.array(told, pa.string())

    def _has(self, kind: str) -> bool:
        return bool(pc.any(pc.starts_with(self._keys, kind)).as_py())

    def _of(self, kind: str) -> list[str]:
        keys = self._keys.filter(pc.starts_with(self._keys, kind))
        return [key.removeprefix(kind) for key in keys.to_pylist()]


def labels_given(run: Run, labelled: Labelled) -> pa.Table:
    """The images of ``run`` that are labelled: ``id, source, row, label`` and ``class``.

    ``label`` is the name that somebody gave, null where the lists do not agree; ``class`` (int32) is the model's class
    of that name, null where it has none. Memory: these rows.

    Raises:
        RegradError: the storage refused or failed.
    """
    classes, own = Classes.of_run(run.info), {name: number for number, name in enumerate(named_classes(run))}
    tables = []
    for rows in run.tables(["id", "source", "row"]):
        told = rows.append_column("label", labelled.labels(rows)).filter(pa.array(labelled.contains(rows)))
        names = told["label"].to_pylist()
        numbers = [None if name is None else own.get(name, classes.label(name)) for name in names]
        tables.append(told.append_column("class", pa.array(numbers, pa.int32())))
    return pa.concat_tables(tables)


def _keys_of(rows: pa.Table) -> pa.ChunkedArray:
    """(n,) what each row of :data:`regrad.handover.take.RETURNED_SCHEMA` tells its image by; null: by nothing."""
    own = pc.struct_field(pc.extract_regex(rows["file"], pattern=OWN_FILE), "digest")
    return pc.coalesce(
        _key(_BY_BOTH, rows["source"], rows["id"]),
        _key(_BY_ID, rows["id"]),
        _key(_BY_DIGEST, own),
        _key(_BY_FILE, rows["file"]),
    )


def _key(kind: str, *texts: pa.ChunkedArray) -> pa.ChunkedArray:
    text = texts[0] if len(texts) == 1 else pc.binary_join_element_wise(*texts, "\n")
    return pc.binary_join_element_wise(kind, text, "")
