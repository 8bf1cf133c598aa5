"""What ``package.module:name`` names, of the user's own."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import Any

from regrad.errors import UsageError
from regrad.importing.code import users_code
from regrad.importing.folders import make_room, on_path, shown

_IMPORTABLE = "it must be importable from the working directory or PYTHONPATH"


def import_object(spec: str) -> Any:
    """What ``package.module:name`` names.

    Raises:
        UsageError: no such module or attribute, or the module's own code fails.
    """
    module_name, _, attribute = spec.partition(":")
    module = import_module(module_name, spec)
    try:
        return functools.reduce(getattr, attribute.split("."), module)
    except AttributeError as error:
        there = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        own = [name for name in there if getattr(getattr(module, name), "__module__", None) == module.__name__]
        raise UsageError(
            f"{spec}: module {module_name} has no {attribute!r} ({shown(getattr(module, '__file__', None))})"
            + (f"; it has {', '.join(own[:5])}" if own else "")
        ) from error


def import_module(name: str, what: str) -> ModuleType:
    """The user's module called ``name``.

    Args:
        what: begins each message.

    Raises:
        UsageError: there is none, another module has its name already, or its own code fails.
    """
    if told := _of_a_file(name):
        raise UsageError(f"{what}: no module {name}; {_IMPORTABLE}{told}")
    folders = on_path()
    make_room(name.partition(".")[0], folders, what)
    importlib.invalidate_caches()
    try:
        with users_code(what, name):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UsageError(f"{what}: no module {error.name}; {_IMPORTABLE}") from error


def _of_a_file(name: str) -> str:
    """How the module is called that ``name`` names by its file, to follow a message; nothing if it does not.

    >>> _of_a_file("./nets/mine.py"), _of_a_file("/home/me/mine.py"), _of_a_file("nets.mine")
    ('; say nets.mine', '; in /home/me, say mine', '')
    """
    folder, slash, base = name.replace("\\", "/").removeprefix("./").removesuffix(".py").rpartition("/")
    if not slash and not name.endswith(".py"):
        return ""
    if folder.startswith(("/", "..", "~")):
        return f"; in {folder}, say {base}"
    return f"; say {'.'.join(filter(None, [*folder.split('/'), base]))}"
