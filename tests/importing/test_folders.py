"""Which module a name means: the user's, wherever others of that name are."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from regrad.errors import UsageError
from regrad.importing import folders
from tests.importing.test_code import BUILD, Write, classes, write

__all__ = ["write"]  # a fixture


@pytest.mark.parametrize("name", ["train", "demo", "audit", "my_net"])
def test_a_module_is_the_users_whatever_jobs_are_called(
    name: str, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(name)
    jobs = Path(folders._JOBS)
    assert (jobs / "train.py").exists()
    monkeypatch.setattr(sys, "path", [str(jobs), *sys.path])  # as Python does for a script
    if name != "my_net":
        __import__(name)  # as a job may have done already
        assert sys.modules[name].__file__ == str(jobs / f"{name}.py")
    assert classes(f"{name}:build") == 7
    assert str(jobs) not in sys.path


def test_the_working_directory_goes_before_pythonpath_and_both_before_the_rest(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("here", BUILD.format(classes=3))
    write("here", BUILD.format(classes=4), "there")
    write("there_alone", BUILD.format(classes=5), "there")
    write("there_alone", BUILD.format(classes=6), "elsewhere")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "there"))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "elsewhere"), *sys.path])
    assert classes("here:build") == 3
    assert classes("there_alone:build") == 5


def test_a_worker_looks_in_its_drivers_folders_first(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("net_of_driver", BUILD.format(classes=3), "driver")
    write("net_of_driver", BUILD.format(classes=4))
    monkeypatch.setattr(folders, "_folders", [])
    folders.search_first([str(tmp_path / "driver")])
    assert classes("net_of_driver:build") == 3


def test_a_module_of_a_folder_worked_in_before_is_not_taken_for_the_one_here(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("same", BUILD.format(classes=3), "first")
    write("same", BUILD.format(classes=4), "second")
    for folder, number in (("first", 3), ("second", 4)):
        monkeypatch.chdir(tmp_path / folder)
        assert classes("same:build") == number


def test_a_name_of_pythons_own_is_one_line(write: Write) -> None:
    write("json")
    with pytest.raises(UsageError, match=r"json:build: json.py has the name of a module that is there"):
        classes("json:build")
