"""What a name of the user's own stands for, and what is said where it stands for nothing."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from regrad.errors import UsageError
from regrad.importing.modules import import_object


@pytest.fixture
def working(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a package of a module."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "nets_of_mine").mkdir()
    (tmp_path / "nets_of_mine/__init__.py").write_text("")
    (tmp_path / "nets_of_mine/small.py").write_text("class Nets:\n    build = 7\n\ndef make(): pass\n")
    return tmp_path


def test_a_name_stands_for_what_its_module_has_at_any_depth(working: Path) -> None:
    assert import_object("nets_of_mine.small:Nets.build") == 7
    with pytest.raises(UsageError, match=r"has no 'bild' \(nets_of_mine/small.py\); it has Nets, make$"):
        import_object("nets_of_mine.small:bild")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nets_of_mine.large", "no module nets_of_mine.large; {path}"),
        ("nets_of_mine/small.py", "no module nets_of_mine/small.py; {path}; say nets_of_mine.small"),
        ("./nets_of_mine/small.py", "no module ./nets_of_mine/small.py; {path}; say nets_of_mine.small"),
        ("nets_of_mine/small", "no module nets_of_mine/small; {path}; say nets_of_mine.small"),
        ("small.py", "no module small.py; {path}; say small"),
        ("/home/me/small.py", "no module /home/me/small.py; {path}; in /home/me, say small"),
        ("../small.py", "no module ../small.py; {path}; in .., say small"),
    ],
)
def test_where_there_is_none_and_how_a_file_is_named(name: str, told: str, working: Path) -> None:
    path = "it must be importable from the working directory or PYTHONPATH"
    with pytest.raises(UsageError, match=f"^{re.escape(f'{name}:make: {told.format(path=path)}')}$"):
        import_object(f"{name}:make")
