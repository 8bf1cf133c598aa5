"""The user's own modules: which one is meant, and what goes wrong in them told as theirs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from regrad.classifier import Classifier
from regrad.errors import UsageError

BUILD = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, {classes})), {{"image_size": 8, "mean": 0.5, "std": 0.5}}
"""
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module into the working directory, or a folder of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = dict(sys.modules)

    def file(name: str, text: str = BUILD.format(classes=7), folder: str = "") -> Path:
        path = tmp_path / folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    yield file
    for name in set(sys.modules) - set(before):
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def classes(spec: str) -> int:
    return Classifier.load(spec).num_classes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "import torch\nimport no_such_library_at_all\n",
            r"mine.py, line 2: no module no_such_library_at_all",
        ),
        ("from torch import no_such_name\n", "mine.py, line 1: ImportError: cannot import name 'no_such_name'"),
        ("x = 1\ndef build(:\n", "mine.py, line 2: SyntaxError"),
        ("x = 1\n\nx.missing\n", "mine.py, line 3: AttributeError: 'int' object has no attribute 'missing'"),
        (
            "import argparse\np = argparse.ArgumentParser()\np.add_argument('--data', required=True)\np.parse_args()\n",
            r"mine.py, line 4 ends the program \(mine: error: the following arguments are required: --data\)",
        ),
        ("import sys\nsys.exit(3)\n", r"mine.py, line 2 ends the program \(exit code 3\)"),
        ("def other():\n    pass\n", r"module mine has no 'build' \(mine.py\); it has other"),
        ("build = 3\n", "build is a int, not a function that returns a network"),
        (
            "def build(classes, *, width):\n    pass\n",
            "mine.py, line 1: it needs classes, width; name a function",
        ),
        ("class build:\n    def __init__(self, classes):\n        pass\n", "mine.py, line 1: it needs classes"),
        ("def build():\n    return 1 / 0\n", "mine.py, line 2: ZeroDivisionError: division by zero"),
        ("def build():\n    open('/no/such/file')\n", "mine.py, line 2: FileNotFoundError"),
        (
            "def build():\n    import no_such_library\n",
            "mine.py, line 2: no module no_such_library; install it here",
        ),
        ("def build():\n    exit(1)\n", r"mine.py, line 2 ends the program \(exit code 1\)"),
        ("def build():\n    pass\n", "mine:build: the factory returned NoneType, not a torch.nn.Module"),
        (
            "import json\ndef deep():\n    json.loads('{')\ndef build():\n    deep()\n",
            "mine.py, line 3: JSONDecodeError",
        ),
    ],
)
def test_what_goes_wrong_in_it_is_told_with_file_and_line(text: str, message: str, write: Write) -> None:
    write("mine", text)
    with pytest.raises(UsageError, match=message) as caught:
        classes("mine:build")
    assert str(caught.value).startswith("mine:build: ")
    assert "\n" not in str(caught.value)


def test_a_module_named_without_its_package_is_told(write: Write) -> None:
    write("mine", "from .layers import Head\n")
    with pytest.raises(UsageError, match=r"relative import .*; name it with its package, from the folder that holds"):
        classes("mine:build")


def test_arguments_are_not_the_modules_and_what_it_prints_goes_to_stderr(
    write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "import argparse\np = argparse.ArgumentParser()\np.add_argument('--output', default='runs')\n"
    write("script", f"{text}args = p.parse_args()\nprint('writing to', args.output)\n{BUILD.format(classes=7)}")
    monkeypatch.setattr(sys, "argv", ["regrad", "score", "--output", "scores"])
    assert classes("script:build") == 7
    out, err = capsys.readouterr()
    assert out == ""
    assert "writing to runs" in err
    assert sys.argv[-1] == "scores"


def test_what_an_ended_program_wrote_is_told_once(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    write("ended", "import argparse\np = argparse.ArgumentParser()\np.add_argument('data')\np.parse_args()\n")
    with pytest.raises(UsageError, match="the following arguments are required: data"):
        classes("ended:build")
    assert capsys.readouterr() == ("", "")


def test_a_logger_made_meanwhile_goes_on_writing(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    head = (
        "import logging, sys\nlog = logging.getLogger('of_user')\nlog.addHandler(logging.StreamHandler(sys.stderr))\n"
    )
    write("logs", head + BUILD.format(classes=7))
    classes("logs:build")
    sys.modules["logs"].log.warning("later")
    assert "later" in capsys.readouterr().err


def test_a_network_itself_and_a_method_can_be_named(write: Write) -> None:
    more = "network = build()[0]\nclass Zoo:\n    @staticmethod\n    def small():\n        return build()\n"
    write("zoo", BUILD.format(classes=7) + more)
    assert classes("zoo:Zoo.small") == 7
    assert Classifier.load("zoo:network", image_size=8).num_classes == 7
