"""Where the user's own modules are looked for, and that a name there means theirs."""

from __future__ import annotations

import importlib.machinery
import os
import sys
import sysconfig
from collections.abc import Sequence

from regrad import storage
from regrad.errors import UsageError

_PACKAGE = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
_JOBS = os.path.join(os.path.dirname(_PACKAGE), "jobs")  # of a checkout: scripts, no modules of anybody's
_INSTALLED = tuple(
    os.path.realpath(sysconfig.get_paths()[name]) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
_folders: list[str] = []


def own_folders() -> list[str]:
    """Where users' modules are looked for before anywhere else: the working directory, then PYTHONPATH."""
    own = (storage.working_directory(), *os.environ.get("PYTHONPATH", "").split(os.pathsep))
    return list(dict.fromkeys(filter(None, own)))


def search_first(folders: Sequence[str]) -> None:
    """Look for users' modules in ``folders`` before one's own from now on, as a worker does in its driver's."""
    _folders[:] = folders
    _put_first(folders)


def on_path() -> list[str]:
    """Put the folders of users' modules before all others on Python's path, and return them."""
    folders = list(dict.fromkeys((*_folders, *own_folders())))
    _put_first(folders)
    return folders


def _put_first(folders: Sequence[str]) -> None:
    sys.path[:] = [*folders, *(folder for folder in sys.path if folder not in folders and not _is_jobs(folder))]


def _is_jobs(folder: str) -> bool:
    return os.path.realpath(folder or os.curdir) == _JOBS


def make_room(name: str, folders: Sequence[str], what: str) -> None:
    """See that ``name`` will be the user's file, if there is one: another of that name may be imported already.

    Raises:
        UsageError: it is the name of a module that Python or a library has loaded.
    """
    own = importlib.machinery.PathFinder.find_spec(name, [os.path.abspath(folder) for folder in folders])
    held = sys.modules.get(name)
    if name == os.path.basename(_PACKAGE) or own is None or own.origin is None or held is None:
        return
    file = getattr(held, "__file__", None)
    if file and os.path.realpath(file) == os.path.realpath(own.origin):
        return
    if file is None or os.path.realpath(file).startswith(_INSTALLED):
        where = "Python's own" if file is None else file
        raise UsageError(
            f"{what}: {shown(own.origin)} has the name of a module that is there already, {where}; rename it"
        )
    for other in [other for other in sys.modules if other.partition(".")[0] == name]:
        del sys.modules[other]  # of another folder that was worked in before


def is_users(file: str) -> bool:
    """Whether ``file`` is neither regrad's own nor installed."""
    return not file.startswith("<") and not os.path.realpath(file).startswith((*_INSTALLED, _PACKAGE + os.sep))


def shown(file: str | None) -> str:
    """A file's path, from the working directory if it is there."""
    if not file:
        return "no file"
    here = os.path.realpath(storage.working_directory()) + os.sep
    return os.path.realpath(file).removeprefix(here) if os.path.realpath(file).startswith(here) else file
