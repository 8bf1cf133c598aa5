"""Sizes, means, filters and class names in the forms that libraries have them in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode

from regrad.errors import UsageError
from regrad.models import settings


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (np.int64(8), (8, 8, None)),
        (8.0, (8, 8, None)),
        (torch.tensor(8), (8, 8, None)),
        (np.array([6, 8]), (6, 8, None)),
        ([6, 8], (6, 8, None)),
        (torch.Size((6, 8)), (6, 8, None)),
        ((1, 6, 8), (6, 8, 1)),
        (torch.tensor([3, 6, 8]), (6, 8, 3)),
        ({"height": 6, "width": 8}, (6, 8, None)),
        ({"shortest_edge": 8}, (8, 8, None)),
    ],
)
def test_sizes_of_every_form(value: Any, wanted: Any) -> None:
    found = settings.image_size(value)
    assert found == wanted
    assert all(type(number) is int for number in found[:2])


@pytest.mark.parametrize(
    "value", ["224", True, 7.5, (6, 8, 3, 1), (6, 8, 9), {"longest_edge": 8}, {}, (), [[6, 8], [6, 8]], float("nan")]
)
def test_what_is_no_size_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="image size"):
        settings.image_size(value)
    with pytest.raises(UsageError, match="at least 1"):
        settings.image_size((0, 8))


@pytest.mark.parametrize(
    "value", [0.25, [0.25], (0.25, 0.25, 0.25), np.full(3, 0.25), torch.full((3, 1, 1), 0.25), torch.tensor(0.25)]
)
def test_means_of_every_form(value: Any) -> None:
    assert settings.per_channel("mean", value, 3) == (0.25, 0.25, 0.25)


@pytest.mark.parametrize("value", ["0.5", [0.1, 0.2], float("nan"), [], np.ones((2, 2)), None])
def test_what_is_no_mean_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="not a number, nor several in a row"):
        settings.per_channel("mean", np.ones((2, 2)), 4)
    with pytest.raises(UsageError, match="mean"):
        settings.per_channel("mean", value, 3)


@pytest.mark.parametrize(
    "value", ["bicubic", "BICUBIC", 3, np.int64(3), Image.Resampling.BICUBIC, InterpolationMode.BICUBIC]
)
def test_filters_of_every_form(value: Any) -> None:
    assert settings.interpolation(value) == "bicubic"


@pytest.mark.parametrize("value", ["cubic", 17, None, True, "random"])
def test_what_is_no_filter_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match=r"interpolation .*: one of nearest, "):
        settings.interpolation(value)


@pytest.mark.parametrize(
    "value",
    [
        ["cat", "dog"],
        ("cat", "dog"),
        np.array(["cat", "dog"]),
        {0: "cat", 1: "dog"},
        {"1": "dog", "0": "cat"},
        {np.int64(1): "dog", np.int64(0): "cat"},
        {"dog": 1, "cat": 0},
        {0: "cat", 1: "dog"}.values(),
    ],
)
def test_class_names_of_every_form(value: Any) -> None:
    assert settings.class_names(value, 2) == ("cat", "dog")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("cat", "a list in the order of the classes"),
        ({"cat", "dog"}, "a list in the order of the classes"),
        (7, "a list in the order of the classes"),
        (["cat"], "1 class names for a network with 2 classes"),
        (
            {0: "cat", 2: "dog"},
            "2 class names .* 2 classes, numbered from 0: 1, 2 are missing or too many",
        ),
        ({0: "cat"}, "numbered from 0: 1 is missing or too many"),
        ({0: "cat", "0": "dog", 1: "cow"}, "numbered from 0, each once"),
        ({"a": "cat", "b": "dog"}, "class indices as its keys, or as its values"),
        (["cat", None], "class 1 has none"),
    ],
)
def test_class_names_that_do_not_tell_are_refused(value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        settings.class_names(value, 2)


def test_names_of_digits_are_not_taken_for_their_own_indices() -> None:
    assert settings.class_names({0: "1", 1: "0"}, 2) == ("1", "0")
    assert settings.class_names([3, 5], 2) == ("3", "5")
