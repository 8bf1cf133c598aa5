import pytest

from regrad.networks import CIFAR10_CLASSES
from regrad.reading.naming.classes import UNKNOWN, Classes
from regrad.reading.naming.trees import labels_of

CIFAR = Classes.of(10, CIFAR10_CLASSES)


@pytest.mark.parametrize(
    ("files", "labels", "told"),
    [
        (("cat/1.png", "dog/2.png"), (3, 5), "labels are the names of its sub-folders, 2 of which are classes"),
        (("Cat/1.png", "cow/2.png", "3.png"), (3, None, None), "1 of which are classes of the model; cow gives none"),
        (("train/cat/1.png", "val/dog/2.png", "val/3.png"), (3, 5, None), "2 of which are classes"),
        (("a/val/cat/1.png", "a/val/dog/x/2.png"), (3, 5), "2 of which"),
        (("label=dog/1.png", "label=cat/2.png"), (5, 3), "2 of which"),
        (("2026-11-25/1.png", "2026-11-26/2.png"), (None, None), "no labels: its sub-folders (2026-11-25 and 2026-11-"),
        (("train/1.png", "val/2.png"), (None, None), "no labels: its sub-folders (train and val) are not called like"),
        (("0/1.png", "1/2.png"), (None, None), "no labels"),
        (("1.png", "2.png"), (None, None), ""),
    ],
)
def test_labels_by_name(files: tuple[str, ...], labels: tuple[int | None, ...], told: str) -> None:
    found = labels_of(files, CIFAR)
    assert found.of_files == labels
    assert told in found.told
    assert bool(told) == bool(found.told)


def test_a_split_is_no_class_even_where_one_is_called_so() -> None:
    classes = Classes(3, ("train", "bus", "test"))
    assert labels_of(("train/1.png", "test/2.png"), classes).of_files == (None, None)
    assert labels_of(("train/bus/1.png", "test/train/2.png"), classes).of_files == (1, 0)
    assert labels_of(("train/1.png", "bus/2.png"), classes).of_files == (0, 1)


@pytest.mark.parametrize(
    ("files", "count", "labels", "told"),
    [
        (("b/1.png", "a/2.png", "3.png"), 2, (1, 0, None), "positions of its 2 sorted sub-folders (a and b)"),
        (("a/1.png", "b/2.png"), 3, (None, None), "no labels: 2 sub-folders (a and b), and 3 classes without names"),
        (("train/1.png", "val/2.png"), 2, (None, None), "no labels: its sub-folders (train and val) are no classes"),
        (("train/x/1.png", "val/y/2.png", "val/x/3.png"), 2, (0, 1, 0), "(x and y)"),
        (("20261125/1.png", "20261126/2.png"), 2, (None, None), "are no classes"),
        (("25.11.2026/1.png", "26.11.2026/2.png"), 2, (None, None), "are no classes"),
        (("day=1/1.png", "day=2/2.png"), 2, (None, None), "are no classes"),
        (("batch_1/1.png", "batch_2/2.png"), 2, (None, None), "are no classes"),
        (tuple(f"{n}/1.png" for n in range(11)), 11, (None,) * 11, "are numbers, and sorted as names (0, 1, 10, 2, 3"),
        (tuple(f"{n:02}/1.png" for n in range(11)), 11, tuple(range(11)), "positions"),
        (("1.png",), 1, (None,), ""),
    ],
)
def test_labels_by_position(files: tuple[str, ...], count: int, labels: tuple[int | None, ...], told: str) -> None:
    found = labels_of(files, Classes(count))
    assert found.of_files == labels
    assert told in found.told


def test_of_an_unknown_model_nothing_is_assumed() -> None:
    assert labels_of(("a/1.png", "b/2.png"), UNKNOWN).of_files == (None, None)


def test_all_of_imagenet_s_folders_are_its_classes_in_order() -> None:
    names = [f"class number {place}" for place in range(1000)]
    for place, name in ((0, "tench"), (1, "goldfish"), (388, "giant panda"), (999, "toilet")):
        names[place] = name
    wnids = [f"n{10**7 + place}" for place in range(1000)]
    found = labels_of([f"{wnid}/1.jpg" for wnid in reversed(wnids)], Classes.of(1000, names))
    assert found.of_files == tuple(range(999, -1, -1))
