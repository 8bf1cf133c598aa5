"""The names in a tar: keys, fields, and which member is the picture."""

from __future__ import annotations

import itertools

import pytest

from regrad.reading.naming import keys


@pytest.mark.parametrize(
    ("name", "key", "field"),
    [
        ("train/0001.jpg", "train/0001", "jpg"),
        ("train/0001.seg.png", "train/0001", "seg.png"),
        ("a.b/c.JPG", "a.b/c", "jpg"),
        ("./x.cls", "x", "cls"),
        ("././/x.cls", "x", "cls"),
        ("22.05.png", "22.05", "png"),
        ("1305031102.175304.json", "1305031102.175304", "json"),
        ("v1.2.left.png", "v1.2", "left.png"),
        ("name.2x", "name", "2x"),
        (".png", "", "png"),
        ("folder/README", "folder/README", ""),
        ("結果.png", "結果", "png"),
    ],
)
def test_a_name_is_cut_before_a_letter(name: str, key: str, field: str) -> None:
    assert keys.split_key(name) == (key, field)


def test_the_group_is_what_webdataset_cuts_to_and_the_last_of_the_ancestors() -> None:
    for name in ("x/1.2.3", "x/plain", "a.b/1.5", "1305031102.175304"):
        key = keys.split_key(f"{name}.png")[0]
        ancestors = keys.ancestors(key)
        assert ancestors[0] == key
        assert ancestors[-1] == keys.group(key)
        assert all(longer.startswith(shorter) for longer, shorter in itertools.pairwise(ancestors))
        assert len(set(ancestors)) == len(ancestors)


@pytest.mark.parametrize(
    ("fields", "wanted", "pictures"),
    [
        (("png", "cls"), None, ["png"]),
        (("cls", "json"), None, []),
        (("left.png", "right.png"), None, ["left.png", "right.png"]),
        (("png", "seg.png"), None, ["png"]),  # the sample's own goes before those of its parts
        (("heic", "jpg"), None, ["jpg"]),  # and one that is decoded before one that is not
        (("seg.png", "png"), "seg.png", ["seg.png"]),
        (("left.seg", "right.seg", "png"), "seg", ["left.seg", "right.seg"]),
        (("png",), "jpg", []),
    ],
)
def test_pictures_of_a_key(fields: tuple[str, ...], wanted: str | None, pictures: list[str]) -> None:
    assert keys.pictures(fields, wanted) == pictures
    assert keys.pictures(fields[::-1], wanted) == pictures  # in whatever order they come


def test_pictures_of_one_key_have_keys_of_their_own() -> None:
    assert [keys.picture_key("x", field, alone=False) for field in ("left.png", "right.png")] == ["x.left", "x.right"]
    assert keys.picture_key("x", "left.png", alone=True) == "x"
