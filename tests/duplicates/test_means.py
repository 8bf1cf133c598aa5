"""Where tasks lay down what others need: on this machine or where all can reach it, and gone at the end."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from regrad import storage
from regrad.duplicates.means import Means


def fail_after_writing(means: Means) -> None:
    with means.scratch() as folder:
        storage.write_atomically(storage.join(folder, "piece-0"), b"x")
        raise KeyError(folder)


@pytest.mark.parametrize("shared", [False, True])
def test_its_folder_goes_with_the_search_however_it_ends(
    shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "out").mkdir()
    with pytest.raises(KeyError) as failed:
        fail_after_writing(Means(folder=str(tmp_path / "out") if shared else None))
    folder = Path(failed.value.args[0])
    assert folder.parent == (tmp_path / "out" if shared else tmp_path)
    assert folder.name.startswith("_tmp-") or not shared  # which readers of outputs know for what it is
    assert not [*tmp_path.rglob("piece-0")]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_nothing_laid_down_is_nothing_to_remove(tmp_path: Path) -> None:
    with Means(folder=str(tmp_path / "out")).scratch():
        pass
    assert not (tmp_path / "out").exists()
