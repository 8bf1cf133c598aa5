"""A command in a process group of its own, watched: what its processes hold, what was scored when; and killed.

What is scored is told by the score of docs/peers/seen.py, a line of time, process and rows a batch.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

LOG = "REGRAD_PEERS_LOG"  # the variable that names the file of the lines
_LOOK, _WEIGH = 0.1, 1.0  # seconds between looks at the lines, and at memory
LAST = 20.0  # seconds that processes have to end after their parent


@dataclass(frozen=True)
class Seen:
    """A batch that was scored: when (seconds since the epoch), by which process, and how many rows."""

    time: float
    process: int
    rows: int


@dataclass
class Ran:
    """What a command did.

    Attributes:
        ended: its exit code, negative for a signal; None where it took too long.
        started: seconds since the epoch.
        peak_mb: most that its processes held at once: the proportional set size, which counts shared pages once.
        seen: the batches.
        said: the last line that it wrote.
        killed: the process that was.
        without: that there was none to kill.
    """

    ended: int | None
    started: float
    peak_mb: float
    seen: list[Seen] = field(default_factory=list)
    said: str = ""
    killed: int | None = None
    without: bool = False

    @property
    def rows(self) -> int:
        """How many rows went through the scorer."""
        return sum(batch.rows for batch in self.seen)


Kill = Callable[[psutil.Process, Sequence[Seen]], int | None]  # what it killed; None: nothing was there


def kill_all(command: psutil.Process, seen: Sequence[Seen]) -> int:
    """SIGKILL to the process group of the command."""
    os.killpg(command.pid, signal.SIGKILL)
    return command.pid


def kill_worker(command: psutil.Process, seen: Sequence[Seen]) -> int | None:
    """SIGKILL to the process that scored last or, where that is the command itself, to one that it forked."""
    children = {child.pid: child for child in command.children(recursive=True)}
    last = children.get(seen[-1].process)
    forked = [child for child in children.values() if child.cmdline() == command.cmdline()]
    victims = [last] if last else forked
    if not victims:
        return None
    victims[0].kill()
    return victims[0].pid


def run_watched(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    at: int | None = None,
    kill: Kill = kill_all,
    limit: float = 600.0,
    last: float = LAST,
) -> Ran:
    """Run ``command`` to its end, at most ``limit`` seconds, and ``kill`` once ``at`` rows are scored; its output goes
    to ``folder``.

    Whatever it started has ended when this returns: by itself within ``last`` seconds, or killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines, words = folder / "seen.log", folder / "output.log"
    started = time.time()
    with words.open("wb") as sink:
        child = subprocess.Popen(  # noqa: S603 - the command is a contender's
            command,
            cwd=folder,
            env={**os.environ, **environment, LOG: str(lines)},
            stdout=sink,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    root = psutil.Process(child.pid)
    family: dict[int, psutil.Process] = {}
    ran = Ran(None, started, 0.0)
    weighed = -_WEIGH
    while child.poll() is None and time.time() - started < limit:
        if at is None and (now := time.time() - started) - weighed >= _WEIGH:  # which takes time that a kill has not
            weighed = now
            family |= _family(root)
            ran.peak_mb = max(ran.peak_mb, sum(map(_held_mb, family)))
        ran.seen = read_seen(lines)
        if at is not None and ran.rows >= at:
            family |= _family(root)
            ran.killed, at = kill(root, ran.seen), None
            ran.without = ran.killed is None
        time.sleep(_LOOK)
    ran.ended = child.poll()
    if ran.ended is None:
        family |= _family(root)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    _outlive(list(family.values()), last)
    ran.seen, ran.said = read_seen(lines), last_line(words)
    return ran


def read_seen(path: Path) -> list[Seen]:
    """The batches told so far; a line that is being written is left for later."""
    if not path.exists():
        return []
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    fields = [line.split() for line in whole.splitlines()]
    return [Seen(float(when), int(process), int(rows)) for when, process, rows in fields]


def last_line(path: Path) -> str:
    """The last line with words in it."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    return next((line for line in reversed(lines) if any(map(str.isalpha, line))), "")


def _family(root: psutil.Process) -> dict[int, psutil.Process]:
    """A process and all that came of it."""
    with contextlib.suppress(psutil.Error):
        return {each.pid: each for each in (root, *root.children(recursive=True))}
    return {}


def _held_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:  # it has ended
        return 0.0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0) / 1000


def _outlive(family: Sequence[psutil.Process], last: float) -> None:
    """Return when all have ended; those that do not by themselves are killed."""
    _, alive = psutil.wait_procs(family, timeout=last)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=LAST)
