from pathlib import Path

import pytest

from regrad.errors import RegradError
from regrad.reading.naming.classes import Classes
from regrad.reading.samples import Columns, Sample, Shard, labelled


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


def test_a_store_that_fails_while_a_shard_is_looked_at_is_no_bad_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.tar").write_bytes(b"<html>")

    def read(size: int = -1) -> bytes:
        raise TimeoutError("the store went away")

    with Shard(str(tmp_path / "a.tar")) as shard:
        assert str(shard.instead()).startswith("a web page")
        monkeypatch.setattr(shard._file, "read", read, raising=False)
        with pytest.raises(RegradError, match=r"a\.tar: cannot read: TimeoutError: the store went away"):
            shard.instead()
