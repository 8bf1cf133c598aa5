from regrad.reading.samples import as_label, is_image


def test_labels_are_carried_not_judged() -> None:
    assert [as_label(value) for value in (3, "7", -1, 658, 2.0)] == [3, 7, -1, 658, 2]
    assert [as_label(value) for value in (None, "cat", 2**31, float("nan"), float("inf"))] == [None] * 5


def test_images_are_known_by_their_names() -> None:
    assert [is_image(name) for name in ("a.JPG", "b.webp", "seg.png", "notes.txt", "jpg")] == [
        True,
        True,
        True,
        False,
        True,
    ]
