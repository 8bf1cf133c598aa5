"""The names in a tar: which of its members make up a sample, and which of them is the sample's picture.

As WebDataset has it, a name is cut at the first dot of its base name into key and field, and what has one key is one
sample. But a dot that a digit follows cuts no name: ``1305031102.175304.png`` and ``22.05.png`` are a key and a field
``png``. Where a key has several pictures and none that is its own (``x.left.png``, ``x.right.png``), each of them is a
sample.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from regrad.reading.naming.pictures import is_decoded, is_image, why_unread

_CUT = re.compile(r"\.(?=[^\W\d_])|\.(?=[^.]*$)")  # before a letter, at the latest before the last part


def plain(name: str) -> str:
    """A member's name without the ``./`` that some archivers begin every name with.

    >>> plain("././train/1.png")
    'train/1.png'
    """
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name


def split_key(name: str) -> tuple[str, str]:
    """A member's key and field, in lower case; without a dot the field is empty, before a first dot the key's base.

    >>> split_key("./train/0001.seg.PNG"), split_key("rgb/13050.1753.png")
    (('train/0001', 'seg.png'), ('rgb/13050.1753', 'png'))
    >>> split_key("x/.png"), split_key("README")
    (('x/', 'png'), ('README', ''))
    """
    folder, slash, base = plain(name).rpartition("/")
    cut = _CUT.search(base)
    stem, field = (base, "") if cut is None else (base[: cut.start()], base[cut.end() :])
    return f"{folder}{slash}{stem}", field.lower()


def group(key: str) -> str:
    """What a key is cut to by WebDataset's own rule: samples whose keys share it may share a ``json``.

    >>> group("rgb/1305031102.175304"), group("a.b/1")
    ('rgb/1305031102', 'a.b/1')
    """
    folder, slash, base = key.rpartition("/")
    return f"{folder}{slash}{base.partition('.')[0]}"


def ancestors(key: str) -> list[str]:
    """``key`` and the shorter ones that it begins with, up to its group.

    >>> ancestors("x/1.2.3")
    ['x/1.2.3', 'x/1.2', 'x/1']
    """
    last = len(group(key))
    ends = [len(key), *(place for place in range(len(key) - 1, last, -1) if key[place] == "."), last]
    return list(dict.fromkeys(key[:end] for end in ends))


def pictures(fields: Collection[str], wanted: str | None) -> list[str]:
    """Which of the ``fields`` of one key are pictures of a sample each: none, one, or several.

    Args:
        wanted: the field that holds the picture (``--image-column``, in lower case); None: any image.
    """
    if wanted is not None:
        return [wanted] if wanted in fields else sorted(field for field in fields if field.endswith(f".{wanted}"))
    images = sorted((field for field in fields if is_image(field)), key=_preference)
    own = [field for field in images if "." not in field]
    return own[:1] or images


def _preference(field: str) -> tuple[bool, bool, str]:
    return not is_decoded(field), why_unread(field) is not None, field


def picture_key(key: str, field: str, alone: bool) -> str:
    """The key of a picture: that of its sample where it is ``alone`` there, else its name without the last part.

    >>> picture_key("x", "left.png", False), picture_key("x", "left.png", True)
    ('x.left', 'x')
    """
    return key if alone else f"{key}.{field.rpartition('.')[0]}"
