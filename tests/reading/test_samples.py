from regrad.reading.naming.classes import Classes
from regrad.reading.samples import Columns, Sample, labelled


def test_a_label_that_means_nothing_is_told_from_none() -> None:
    classes = Classes(2, ("cat", "dog"))
    found = [labelled(Sample(0, "a", b"x"), value, classes) for value in ("dog", "cow", None, 7)]
    assert [sample.label for sample in found] == [1, None, None, 7]
    assert [sample.no_class for sample in found] == [False, True, False, False]
    assert found[0].image == b"x"


def test_the_columns_of_a_run_come_with_the_classes_of_its_model() -> None:
    run = {"config": {"label_column": "cls"}, "model": {"classes": 2, "class_names": ["cat", "dog"]}}
    assert Columns.of(run) == Columns(label="cls", classes=Classes(2, ("cat", "dog")))
    assert Columns.of({}) == Columns()
