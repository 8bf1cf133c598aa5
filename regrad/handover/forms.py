"""What a form of handing over must say; each is a file of this room, and an entry of :mod:`regrad.handover.known`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import IO, Any

from regrad.handover.entries import About, Entry

Add = Callable[[Entry], None]


def nothing_beside(about: About) -> dict[str, bytes]:
    """For a form whose list is all there is."""
    return {}


def nowhere(place: str) -> bool:
    """For a form whose images lie below the list, always."""
    return False


def anywhere(place: str) -> bool:
    """For a form whose list may name an image by any path or URI."""
    return True


@dataclass(frozen=True)
class Form:
    """One form.

    Attributes:
        name: as ``--format`` has it.
        list_name: of the file that names all images; it is written last.
        listing: gives, of the opened file of the list, what adds an entry to it; at the end of its context the list is
            whole. It keeps no entries.
        images: the folder of copies, below that of the list.
        refers: whether the tool reads an image from this path or URI, so that no copy is needed.
        measured: whether the list has every image's size.
        beside: other files, by name.
    """

    name: str
    list_name: str
    listing: Callable[[IO[bytes], About], AbstractContextManager[Add]]
    images: str = "images"
    refers: Callable[[str], bool] = nowhere
    measured: bool = False
    beside: Callable[[About], Mapping[str, bytes]] = nothing_beside


@dataclass(frozen=True, slots=True)
class Returned:
    """What a file that comes back says of one image.

    Attributes:
        id: None where the image is told by ``file``, a path, URI or name.
        source: of the image; None where the file does not say.
        labelled: whether somebody has labelled it.
        label: the name of its class; None: none, or no single one.
        predicted: whether it is not labelled, and the prediction came back as it was handed over.
    """

    id: str | None
    source: str | None
    file: str | None
    labelled: bool
    label: str | None = None
    predicted: bool = False


#: An attribute of a prediction, where a label has the same place: what it was, so that a change of it is seen.
PREDICTION = "prediction"


def still_predicted(attributes: Mapping[Any, Any] | None, label: str | None, otherwise: bool = False) -> bool:
    """Whether what stands in the place of the label is the prediction, as it was handed over.

    Args:
        attributes: of what stands there; a tool drops or resets them where somebody gives another label.
        otherwise: what to say where they tell no prediction.
    """
    told = (attributes or {}).get(PREDICTION)
    return otherwise if told is None else str(told) == label


def told_in(record: Mapping[str, Any], labelled: bool, label: str | None, file: str | None = None) -> Returned:
    """What a record of a list of one's own says, by the names of columns that any of them has."""
    name, source = (_text(record, f"regrad_{key}", key) for key in ("id", "source"))
    if name is not None:
        return Returned(name, source, None, labelled, label)
    return Returned(None, None, file or _text(record, *FILE_COLUMNS), labelled, label)


FILE_COLUMNS = ("file_name", "file", "image", "filepath")


def _text(record: Mapping[str, Any], *keys: str) -> str | None:
    return next((str(record[key]) for key in keys if record.get(key) is not None), None)
