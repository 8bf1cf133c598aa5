"""What the labels that datasets hold mean to a model: names of its classes, other names, and numbers."""

from __future__ import annotations

import importlib.util
import math
import numbers
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

_LARGEST = 2**31  # the table's labels are int32
_PLACEHOLDER = re.compile(r"(?:label|class)[\s_-]*\d+", re.IGNORECASE)
_WHOLE = re.compile(r"[+-]?\d+(?:\.0*)?")
_WNID = re.compile(r"n\d{8}")  # of WordNet, as ImageNet names its folders
_IMAGENET = {0: "tench", 1: "goldfish", 388: "giantpanda", 999: "toilet"}


@dataclass(frozen=True)
class Classes:
    """The classes of a model, as far as they are known.

    Attributes:
        count: how many there are.
        names: in order; none where the model has none, or such as ``LABEL_0`` that say nothing.
    """

    count: int | None = None
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, count: int | None, names: Iterable[str] | None) -> Classes:
        """Of a model with so many classes and these names.

        >>> Classes.of(2, ["LABEL_0", "LABEL_1"]).names, Classes.of(2, ["cat", "dog"]).names
        ((), ('cat', 'dog'))
        """
        named = tuple(str(name) for name in names or ())
        return cls(count, () if all(_PLACEHOLDER.fullmatch(name) for name in named) else named)

    @classmethod
    def of_run(cls, run: Mapping[str, Any]) -> Classes:
        """Of the model of this ``run.json``."""
        model = run.get("model", {})
        return cls.of(model.get("classes"), model.get("class_names"))

    def index(self, name: str) -> int | None:
        """The class that is called so; None: none is, or more than one.

        Spelt as the model spells it, else in whatever case and with whatever between the words, else one of several
        names that a class has (``tench, Tinca tinca``), else a folder of ImageNet where these are its classes.

        >>> classes = Classes(3, ("cat", "Hot dog", "crane, bird"))
        >>> [classes.index(name) for name in ("cat", "hot_dog", "HotDog", "bird", "dog")]
        [0, 1, 1, 2, None]
        """
        for spelling, known in zip((name, _plain(name), _plain(name)), self._spellings, strict=True):
            if spelling in known:
                return known[spelling]
        return _imagenet().get(name) if _WNID.fullmatch(name) and self.is_imagenet else None

    def label(self, value: Any) -> int | None:
        """The class that a value of a dataset means, or a number that is none: numbers are carried, not judged.

        >>> classes = Classes(2, ("cat", "dog"))
        >>> [classes.label(value) for value in ("dog", 1, 1.0, "1", True, 7, -1)]
        [1, 1, 1, 1, 1, 7, -1]
        >>> [classes.label(value) for value in ("cow", 0.5, None, float("nan"), [1], 2**31)]
        [None, None, None, None, None, None]
        """
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if isinstance(value, bool) or type(value).__name__ == "bool":
            named = self.index(str(bool(value)))
            return named if named is not None else int(value) if self.count == 2 else None
        if isinstance(value, str):
            named = self.index(value.strip())
            return named if named is not None else whole_label(value)
        return whole_label(value)

    def mapping(self, names: Sequence[str]) -> tuple[int | None, ...] | None:
        """Which class of the model each of a dataset's classes is, in order; None: its numbers are the model's.

        They are where either has no names, and where there are as many of both and none that both have has another
        number: the others are then taken for other names of the same.
        """
        if not self.names or not names:
            return None
        own = tuple(self.index(name) for name in names)
        moved = any(index not in (None, place) for place, index in enumerate(own))
        return own if moved or len(names) != len(self.names) else None

    @cached_property
    def is_imagenet(self) -> bool:
        """Whether these are the thousand classes of ImageNet, in their usual order."""
        return self.count == len(self.names) == 1000 and all(
            _plain(name) in map(_plain, _several(self.names[place])) for place, name in _IMAGENET.items()
        )

    @cached_property
    def _spellings(self) -> tuple[dict[str, int | None], ...]:
        several = ((other, place) for place, name in enumerate(self.names) for other in _several(name))
        return (
            _once((name, place) for place, name in enumerate(self.names)),
            _once((_plain(name), place) for place, name in enumerate(self.names)),
            _once((_plain(name), place) for name, place in several),
        )


UNKNOWN = Classes()


def is_missing(value: Any) -> bool:
    """Whether a value of a dataset says that there is no label.

    >>> [is_missing(value) for value in (None, "", float("nan"), 0, "cow")]
    [True, True, True, False, False]
    """
    if isinstance(value, (str, bytes)):
        return not value.strip()
    return value is None or (isinstance(value, numbers.Real) and math.isnan(value))


def whole_label(value: Any) -> int | None:
    """``value`` as a whole number that fits the table's labels; None: it is none.

    >>> [whole_label(value) for value in (3, "7", 2.0, "2.0", 2.5, "x")]
    [3, 7, 2, 2, None, None]
    """
    if isinstance(value, str):
        value = value.strip()
        if not _WHOLE.fullmatch(value):
            return None
        value = value.partition(".")[0]
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    exact = isinstance(value, str) or number == value
    return number if exact and -_LARGEST <= number < _LARGEST else None


def mapped_in_words(classes: Classes, names: Sequence[str]) -> str:
    """What becomes of the labels of a dataset that has names for its classes; nothing where these are the model's."""
    mapping = classes.mapping(names)
    strange = [name for name in names if classes.index(name) is None] if classes.names else []
    if mapping is None:
        return f"taken for the model's classes by number, though {not_called(strange)}" if strange else ""
    if len(strange) == len(names):
        return f"none, since {not_called(strange)}"
    if mapping == tuple(range(len(names))):
        return ""
    left = f"; {not_called(strange)}" if strange else ""
    return f"by the names of {len(names) - len(strange)} classes, which are in another order than the model's{left}"


def not_called(names: Sequence[str]) -> str:
    """That these are no names of classes."""
    return f"the model has no class called {in_short(names, last='or')}"


def in_short(names: Sequence[str], shown: int = 5, last: str = "and") -> str:
    """The first of many names.

    >>> in_short(["a", "b", "c"], 2), in_short(["a", "b"])
    ('a, b and 1 more', 'a and b')
    """
    if len(names) > shown:
        return f"{', '.join(names[:shown])} {last} {len(names) - shown} more"
    return f" {last} ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _once(pairs: Iterable[tuple[str, int]]) -> dict[str, int | None]:
    """Each name with its class; with None where two classes have it."""
    places: dict[str, int | None] = {}
    for name, place in pairs:
        places[name] = place if places.get(name, place) == place else None
    return places


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", unicodedata.normalize("NFKC", name).casefold())


def _several(name: str) -> Iterator[str]:
    """The names in one: those between commas, and WordNet's."""
    yield from _WNID.findall(name)
    yield from (part.strip() for part in _WNID.sub("", name).split(","))


@cache
def _imagenet() -> dict[str, int]:
    """The class of each folder of ImageNet, from the table that timm brings; none where it is not installed."""
    spec = importlib.util.find_spec("timm")
    for place in (spec and spec.submodule_search_locations) or ():
        table = Path(place) / "data/_info/imagenet_synsets.txt"
        if table.is_file():
            return {wnid: number for number, wnid in enumerate(table.read_text().split())}
    return {}
