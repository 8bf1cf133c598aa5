from regrad.reading.samples import as_label


def test_labels_are_carried_not_judged() -> None:
    assert [as_label(value) for value in (3, "7", -1, 658, 2.0)] == [3, 7, -1, 658, 2]
    assert [as_label(value) for value in (None, "cat", 2**31, float("nan"), float("inf"))] == [None] * 5
