import decimal
import importlib.util
import re

import numpy as np
import pytest

from regrad.networks import CIFAR10_CLASSES
from regrad.reading.naming import classes as module
from regrad.reading.naming.classes import Classes, is_missing, mapped_in_words

CIFAR = Classes.of(10, CIFAR10_CLASSES)


@pytest.mark.parametrize(
    ("name", "index"),
    [("cat", 3), ("Cat", 3), (" cat", 3), ("CAT", 3), ("cats", None), ("automobile", 1), ("", None), ("3", None)],
)
def test_a_class_by_its_name(name: str, index: int | None) -> None:
    assert CIFAR.index(name) == index


def test_the_spelling_of_the_model_goes_first() -> None:
    assert [Classes(2, ("A", "a")).index(name) for name in ("a", "A")] == [1, 0]
    words = Classes(3, ("polar bear", "ice-cream", "Straße"))
    assert [words.index(name) for name in ("polar_bear", "PolarBear", "ice cream", "STRASSE")] == [0, 0, 1, 2]


def test_a_name_that_two_classes_have_is_none() -> None:
    cranes = Classes(4, ("crane", "maillot", "crane", "crane, bird"))
    assert [cranes.index(name) for name in ("crane", "Crane", "maillot", "bird")] == [None, None, 1, 3]


def test_names_that_say_nothing_are_none() -> None:
    assert Classes.of(2, ["LABEL_0", "LABEL_1"]).names == ()
    assert Classes.of(2, ["class 0", "class 1"]).names == ()
    assert Classes.of(2, ["1", "0"]).index("0") == 1
    assert Classes.of(2, None) == Classes(2)


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (3, 3),
        (np.int64(3), 3),
        (np.float32(3), 3),
        (3.0, 3),
        (decimal.Decimal(3), 3),
        ("3", 3),
        ("3.0", 3),
        (b"dog", 5),
        ("Dog", 5),
        (658, 658),
        (-1, -1),
        (2.5, None),
        (decimal.Decimal("2.5"), None),
        (float("nan"), None),
        (float("inf"), None),
        (2**31, None),
        (None, None),
        ("cow", None),
        (True, None),
        (np.True_, None),
        ([3], None),
        ({"label": 3}, None),
    ],
)
def test_what_a_value_means(value: object, label: int | None) -> None:
    assert CIFAR.label(value) == label


def test_true_and_false_are_two_classes() -> None:
    assert [Classes(2).label(value) for value in (False, True, np.True_)] == [0, 1, 1]
    assert Classes(2, ("True", "False")).label(True) == 0
    assert [is_missing(value) for value in (None, float("nan"), np.float32("nan"), "", b" ")] == [True] * 5
    assert not any(is_missing(value) for value in (0, False, "x", 2**31, []))


@pytest.mark.parametrize(
    ("names", "mapping", "told"),
    [
        (CIFAR10_CLASSES, None, ""),
        (CIFAR10_CLASSES[::-1], tuple(range(9, -1, -1)), "by the names of 10 classes, which are in"),
        (("cat", "cow", "dog"), (3, None, 5), "by the names of 2 classes, .*; the model has no class called cow"),
        (CIFAR10_CLASSES[:4], (0, 1, 2, 3), ""),
        ([*CIFAR10_CLASSES[:9], "lorry"], None, "taken for the model's classes by number, though .* called lorry"),
        (("x", "y"), (None, None), "none, since the model has no class called x or y"),
        ((), None, ""),
    ],
)
def test_the_classes_of_a_dataset(names: tuple[str, ...], mapping: tuple[int | None, ...] | None, told: str) -> None:
    assert CIFAR.mapping(names) == mapping
    assert re.fullmatch(f"{told}.*" if told else "", mapped_in_words(CIFAR, names))
    assert Classes(10).mapping(names) is None
    assert mapped_in_words(Classes(10), names) == ""


def test_the_folders_of_imagenet(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"class number {place}" for place in range(1000)]
    for place, name in ((0, "tench, Tinca tinca"), (1, "goldfish"), (388, "giant panda"), (999, "toilet tissue, x")):
        names[place] = name
    assert not Classes.of(1000, names).is_imagenet
    imagenet = Classes.of(1000, [*names[:999], "toilet paper, toilet"])
    assert imagenet.is_imagenet
    monkeypatch.setattr(module, "_imagenet", lambda: {"n02510455": 388})
    assert imagenet.index("n02510455") == 388
    assert CIFAR.index("n02510455") is None
    assert Classes.of(2, ["n01440764 tench", "n02510455 giant panda"]).index("n02510455") == 1


def test_the_table_of_imagenet_is_the_one_that_timm_brings() -> None:
    if importlib.util.find_spec("timm") is None:
        pytest.skip("no timm")
    assert (len(module._imagenet()), module._imagenet()["n02510455"]) == (1000, 388)
