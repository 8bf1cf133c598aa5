"""The user's own code, run: what goes wrong in it is told as theirs, in one line with file and line."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator
from typing import Any

from regrad import storage
from regrad.errors import UsageError
from regrad.importing.folders import is_users, shown


@contextlib.contextmanager
def users_code(what: str, name: str = "") -> Iterator[None]:
    """Tell what goes wrong in here as the user's: file, line and cause in one line.

    Inside, the program has no arguments, since those there are are not the user's; what is printed goes to stderr.

    Raises:
        UsageError: it failed, or ended the program.
        ModuleNotFoundError: ``name`` itself is not there.
    """
    argv, streams = sys.argv, (sys.stdout, sys.stderr)
    held = _Held(sys.stderr)
    sys.argv, sys.stdout, sys.stderr = [name or argv[0]], held, held
    try:
        yield
    except UsageError:
        raise
    except SystemExit as error:
        said = held.drop() or f"exit code {error.code or 0}"
        raise UsageError(
            f"{what}: {_where(error)} ends the program ({said}): regrad has no arguments for it; what belongs to a "
            "script goes under `if __name__ == '__main__':`"
        ) from error
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise
        raise UsageError(
            f"{what}: {_where(error)}: no module {error.name}; install it here and on every node"
        ) from error
    except SyntaxError as error:
        raise UsageError(f"{what}: {shown(error.filename)}, line {error.lineno}: {storage.reason(error)}") from error
    except Exception as error:
        above = "; name it with its package, from the folder that holds that" if _leaves_package(error) else ""
        raise UsageError(f"{what}: {_where(error)}: {storage.reason(error)}{above}") from error
    finally:
        sys.argv, (sys.stdout, sys.stderr) = argv, streams
        held.release()


def _leaves_package(error: Exception) -> bool:
    """Whether a module, named without its package, imports from that."""
    return isinstance(error, ImportError) and "relative import" in str(error)


class _Held:
    """Stands for stderr: keeps what is written until it is released, and hands it on from then on."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._kept: list[str] | None = []

    def write(self, text: str) -> int:
        if self._kept is None:
            return int(self._stream.write(text))
        self._kept.append(text)
        return len(text)

    def drop(self) -> str:
        """Forget what is kept; its last line, which of argparse's is the one that tells."""
        lines = "".join(self._kept or ()).strip().splitlines()
        self._kept = []
        return lines[-1].strip() if lines else ""

    def release(self) -> None:
        kept, self._kept = self._kept, None
        if kept:
            self._stream.write("".join(kept))
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _where(error: BaseException) -> str:
    """File and line of the user's code that ``error`` went through last."""
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    own = [(file, line) for file, line in frames if is_users(file)]
    file, line = (own or frames)[-1]
    return f"{shown(file)}, line {line}"
