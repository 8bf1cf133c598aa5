"""The labels that the sub-folders of a folder of images give: classes by name, by position, or none."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from regrad.reading.naming.classes import Classes, in_short

_LEVELS = 4  # below which no class is looked for
_SPLITS = frozenset(
    ("train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval", "evaluation", "holdout")
)
# What sub-folders are called that are no classes: days and times, parts, and what Hive writes.
_NO_CLASS = re.compile(
    r"(?:19|20)\d\d(?:[-_. T]?W?\d\d){0,5}|\d\d?[-_.]\d\d?[-_.](?:19|20)\d\d|[\w-]+=.*"
    r"|(?:part|batch|shard|chunk|fold|split|night|day|week|month)[-_ ]?\d+",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Labels:
    """The labels of some files, in their order, and the line that says where they come from, if there is anything to
    say."""

    of_files: tuple[int | None, ...]
    told: str = ""


def labels_of(files: Sequence[str], classes: Classes) -> Labels:
    """The labels of ``files``, paths below a folder, by the names of the folders they are in.

    Where the model has class names, these decide, at whichever level most images are in folders of such names, so that
    ``val/cat/1.png`` is a cat. Where it has none, the sorted folders of the first level (below ``train`` and ``val``)
    are its classes by position, if there are as many. Else there are no labels.
    """
    levels = _levels(files)
    if not levels or classes.count is None:
        return Labels((None,) * len(files))
    return _by_name(levels, classes) if classes.names else _by_position(levels, classes.count)


def _levels(files: Sequence[str]) -> list[list[str | None]]:
    """For each level, the folder that every file is in there."""
    folders = [name.split("/")[:-1] for name in files]
    depth = min(_LEVELS, max(map(len, folders), default=0))
    return [[names[level] if level < len(names) else None for names in folders] for level in range(depth)]


def _by_name(levels: Sequence[Sequence[str | None]], classes: Classes) -> Labels:
    best: tuple[tuple[int, int, int], dict[str, int | None]] | None = None
    for level, names in enumerate(levels):
        known = _classes_of(_distinct(names), classes)
        images = sum(known.get(name) is not None for name in names if name is not None)
        rank = (images, len(set(known.values()) - {None}), -level)
        if images and (best is None or rank > best[0]):
            best = rank, known
    if best is None:
        told = f"no labels: its sub-folders ({in_short(_distinct(levels[0]))}) are not called like classes of the model"
        return Labels((None,) * len(levels[0]), told)
    known = best[1]
    strange = sorted(name for name, index in known.items() if index is None)
    told = f"labels are the names of its sub-folders, {len(known) - len(strange)} of which are classes of the model"
    if strange:
        told += f"; {in_short(strange)} {'gives' if len(strange) == 1 else 'give'} none"
    return Labels(tuple(known.get(name or "") for name in levels[-best[0][2]]), told)


def _classes_of(names: Sequence[str], classes: Classes) -> dict[str, int | None]:
    if _are_splits(names):
        return {}  # also where a class has such a name
    known = {name: classes.index(name.rpartition("=")[2]) for name in names}  # Hive writes label=cat
    wnids = len(names) == classes.count and classes.is_imagenet and all(re.fullmatch(r"n\d{8}", name) for name in names)
    if wnids and not any(index is not None for index in known.values()):
        return {name: place for place, name in enumerate(names)}  # all of ImageNet, in its order
    return known


def _by_position(levels: Sequence[Sequence[str | None]], count: int) -> Labels:
    below = len(levels) > 1 and _are_splits(_distinct(levels[0]))
    names = levels[1] if below else levels[0]
    sorted_names = _distinct(names)
    if why := _why_no_position(sorted_names, count):
        return Labels((None,) * len(names), f"no labels: {why}")
    place = {name: number for number, name in enumerate(sorted_names)}
    told = (
        f"labels are the positions of its {count} sorted sub-folders ({in_short(sorted_names)}), since the model has "
        "as many classes, without names"
    )
    return Labels(tuple(place.get(name or "") for name in names), told)


def _why_no_position(names: Sequence[str], count: int) -> str:
    """Why the places of sub-folders of these names are no classes; empty: they are."""
    shown = in_short(names)
    if len(names) != count:
        return f"{len(names)} sub-folders ({shown}), and {count} classes without names"
    if _are_splits(names) or all(_NO_CLASS.fullmatch(name) for name in names):
        return f"its sub-folders ({shown}) are no classes"
    if all(name.isdecimal() for name in names) and sorted(names, key=int) != list(names):
        return f"its sub-folders are numbers, and sorted as names ({shown}) they come in another order"
    return ""


def _are_splits(names: Collection[str]) -> bool:
    return all(name.lower() in _SPLITS for name in names)


def _distinct(names: Sequence[str | None]) -> list[str]:
    return sorted({name for name in names if name is not None})
