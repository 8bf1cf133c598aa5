"""Handing over: copies of the images that the tool cannot read where they are, then the list that names them all.

The folder is ours: ``.handover.json`` says so before anything else is written, and at the end that it is complete. The
list is written when every image is there, whole or not at all. Memory: some thousand entries and a few images,
however many there are.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import json
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from regrad import formatting, storage
from regrad.errors import UsageError
from regrad.handover.entries import About, Entry, label_name, named_classes, stems
from regrad.handover.forms import Add, Form
from regrad.handover.known import FORMS
from regrad.handover.writing import indented
from regrad.reading import images
from regrad.reading.formats import fetcher, format_of
from regrad.reading.samples import digest_of
from regrad.runs.scored import Run

MARK = ".handover.json"
_COLUMNS = ("id", "source", "row", "label", "prediction", "confidence", "score", "digest")
_ROWS = 2**13  # looked at together: those of one source are read at one go
_WRITES = 16  # at the same time; a store's latency hides behind it


@dataclass
class Given:
    """What has been handed over so far.

    Attributes:
        images: on the list.
        copied: of these, copied.
        gone: left out, since their sources have none of them any more.
        changed: left out, since another image has been put in their place since they were scored.
        unreadable: left out, since their size cannot be told.
    """

    images: int = 0
    copied: int = 0
    gone: int = 0
    changed: int = 0
    unreadable: int = 0

    def problems(self) -> str | None:
        """What was left out, in words."""
        told = {
            "not in the sources any more": self.gone,
            "not what was scored any more": self.changed,
            "of no size that can be told": self.unreadable,
        }
        return "; ".join(f"{formatting.count(number, 'image')} {why}" for why, number in told.items() if number) or None


@dataclass(frozen=True)
class _Picture:
    """An image that was read: where it is, and its size."""

    place: str
    copied: bool
    width: int = 0
    height: int = 0


class Giver:
    """Takes the rows to be handed over.

    Attributes:
        given: what has been.
    """

    def __init__(self, run: Run, form: Form, about: About, add: Add):
        self.given = Given()
        self._form, self._about, self._add = form, about, add
        self._fetch = fetcher(run.info)
        self._most = run.info.get("config", {}).get("max_pixels") or images.DEFAULT_MAX_PIXELS

    def take(self, rows: pa.Table) -> None:
        """Hand over ``rows``: ``id, source, row, prediction, confidence, score, digest``, and ``label`` or not.

        Raises:
            RegradError: the storage refused or failed.
        """
        for start in range(0, len(rows), _ROWS):
            self._take(rows.slice(start, _ROWS))

    def _take(self, rows: pa.Table) -> None:
        own, records = stems(rows), rows.select([name for name in _COLUMNS if name in rows.column_names]).to_pylist()
        pictures = self._pictures(records, own)
        for place, (record, stem) in enumerate(zip(records, own, strict=True)):
            if (picture := pictures.get(place)) is not None:
                self._add(self._entry(record, stem, picture))
                self.given.images += 1
                self.given.copied += picture.copied

    def _entry(self, record: Mapping[str, Any], stem: str, picture: _Picture) -> Entry:
        classes, prediction = self._about.classes, record["prediction"]
        score = float("nan") if record["score"] is None else record["score"]
        return Entry(
            record["id"],
            record["source"],
            record["row"],
            stem,
            picture.place,
            picture.copied,
            picture.width,
            picture.height,
            prediction,
            label_name(prediction, classes) or str(prediction),
            record["confidence"],
            score,
            label_name(record.get("label"), classes),
        )

    def _pictures(self, records: list[dict[str, Any]], own: list[str]) -> dict[int, _Picture]:
        """By the place among the ``records``: the images that there are, copied where that is needed."""
        pictures: dict[int, _Picture] = {}
        wanted: dict[str, dict[int, int]] = defaultdict(dict)  # source -> row -> place
        for place, record in enumerate(records):
            file = self._file(record)
            if file is not None and not self._form.measured:
                pictures[place] = _Picture(file, False)
            else:
                wanted[record["source"]][record["row"]] = place
        with concurrent.futures.ThreadPoolExecutor(_WRITES, "regrad-handover") as pool:
            running: deque[tuple[int, concurrent.futures.Future[_Picture | None]]] = deque()
            for place, encoded in self._read(wanted, records):
                running.append((place, pool.submit(self._write, records[place], own[place], encoded)))
                if len(running) > 2 * _WRITES:
                    self._note(pictures, *running.popleft())
            for place, picture in running:
                self._note(pictures, place, picture)
        return pictures

    def _file(self, record: Mapping[str, Any]) -> str | None:
        """The file that an image is, where the form may name it."""
        file = format_of(record["source"]).image_file(record["source"], record["id"])
        return file if file is not None and self._form.refers(file) else None

    def _read(
        self, wanted: Mapping[str, Mapping[int, int]], records: list[dict[str, Any]]
    ) -> Iterator[tuple[int, bytes]]:
        for source, places in wanted.items():
            left = len(places)
            for row, encoded in self._fetch(source, {row: records[place]["id"] for row, place in places.items()}):
                left -= 1
                known = records[places[row]].get("digest")
                if known is not None and known != digest_of(encoded):
                    self.given.changed += 1
                else:
                    yield places[row], encoded
            self.given.gone += left

    def _write(self, record: Mapping[str, Any], stem: str, encoded: bytes) -> _Picture | None:
        """In a thread of its own: the image's size, and its copy where one is needed. None: it has no size."""
        try:
            size = images.upright_size(encoded, self._most) if self._form.measured else (0, 0)
        except Exception:  # of many kinds, from damaged files
            return None
        if (file := self._file(record)) is not None:
            return _Picture(file, False, *size)
        place = f"{self._form.images}/{stem}.{images.extension(encoded)}"
        storage.write_atomically(storage.join(self._about.folder, place), encoded)
        return _Picture(place, True, *size)

    def _note(
        self, pictures: dict[int, _Picture], place: int, picture: concurrent.futures.Future[_Picture | None]
    ) -> None:
        if (known := picture.result()) is None:
            self.given.unreadable += 1
        else:
            pictures[place] = known


@contextlib.contextmanager
def giving(run: Run, name: str, score: str, folder: str) -> Iterator[Giver]:
    """Hands over to ``folder`` what the giver takes; complete when the context ends well.

    Args:
        name: of the form.
        score: what the rows' column ``score`` is called.
        folder: a path or URI; what an earlier hand-over of ours left there goes, and nothing else.

    Raises:
        UsageError: ``folder`` holds something that is no hand-over.
        RegradError: the storage refused or failed.
    """
    form = FORMS[name]
    about = About(score, named_classes(run), storage.mask(str(run.model["spec"] or "the model")), folder)
    told = {"format": name, "run": storage.mask(run.output), "score": score, "started": formatting.now()}
    _claim(folder, told | {"status": "running"})
    for other, content in form.beside(about).items():
        storage.write_atomically(storage.join(folder, other), content)
    with storage.writing(storage.join(folder, form.list_name)) as file, form.listing(file, about) as add:
        giver = Giver(run, form, about, add)
        yield giver
    _mark(folder, told | {"status": "done", "finished": formatting.now(), **vars(giver.given)})


def _claim(folder: str, told: Mapping[str, Any]) -> None:
    """Mark ``folder`` as ours, and remove an earlier hand-over: its list first, so that none names what has gone."""
    earlier = _earlier(folder)
    _mark(folder, told)
    for name in storage.list_all(folder)[1]:
        storage.remove(storage.join(folder, name))
    if earlier is not None:
        storage.remove(storage.join(folder, earlier.list_name))
        storage.remove_folder(storage.join(folder, earlier.images))


def _earlier(folder: str) -> Form | None:
    """The form of the hand-over that ``folder`` holds; None where it is empty.

    Raises:
        UsageError: it holds something else.
    """
    try:
        return FORMS[json.loads(storage.read_bytes(storage.join(folder, MARK)))["format"]]
    except FileNotFoundError:
        if not any(itertools.chain(*storage.list_all(folder))):
            return None
    except (ValueError, KeyError, TypeError):
        pass
    raise UsageError(f"{storage.mask(folder)}: holds something that is no hand-over of regrad's; use another --output")


def _mark(folder: str, content: Mapping[str, Any]) -> None:
    storage.write_atomically(storage.join(folder, MARK), indented(content))
