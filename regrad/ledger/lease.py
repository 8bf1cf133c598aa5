"""One run at a time on an output: a lease that its holder keeps renewing, and that another takes over when it stops.

``OUT/lease/<generation>.json`` names the holder of the output; the highest generation counts. Taking over creates the
next generation, which one contender alone can do, and then removes the old one. Nothing depends on clocks that agree:
a lease has expired when it was watched for its whole time and did not change.

Assumptions: an exclusive create (local disks, S3 and stores that know ``If-None-Match``). On a store that ignores the
condition, which is tried, the last of two writers within a second wins, and the others see that.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import psutil

from regrad import storage
from regrad.errors import RegradError, UsageError
from regrad.formatting import now
from regrad.storage import retry

SECONDS = 30.0  # how long a lease that is not renewed is respected
_RENEWALS = 6  # in that time
_LOOKS = 30  # at another's lease in that time
_SETTLE_SECONDS = 1.0
_ours: set[str] = set()  # the holders of this process that still renew


class LeaseLost(RegradError):
    """Another run has taken the output over, since this one had stopped renewing its lease."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lease: a process, told apart from any other that had or will have its number."""

    name: str
    host: str
    boot: str
    pid: int
    started: float
    command: str
    since: str
    seconds: float
    beat: int = 0

    @classmethod
    def this_process(cls, seconds: float) -> Holder:
        """The running process, under a new name."""
        pid = os.getpid()
        program = os.path.basename(sys.argv[0]).replace("__main__.py", "regrad")  # of `python -m regrad`
        command = storage.mask(shlex.join([program, *sys.argv[1:]]))[:500]
        started = psutil.Process(pid).create_time()
        return cls(uuid.uuid4().hex, socket.gethostname(), _boot(), pid, started, command, now(), seconds)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}: {self.command}"

    def is_dead_here(self) -> bool:
        """Whether it was a process of this machine and is no more, or this one, which has let go."""
        if (self.host, self.boot) != (socket.gethostname(), _boot()):
            return False
        if self.pid == os.getpid():
            return self.name not in _ours
        try:
            process = psutil.Process(self.pid)
            # Start times are taken from the boot time, which the clock may be set under.
            return process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - self.started) > 2
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False


@dataclass(frozen=True)
class Lease:
    """A lease that is held, as workers know it; plain data, so that it travels."""

    folder: str
    generation: int
    holder: str

    @property
    def uri(self) -> str:
        """Its file, ``FOLDER/GENERATION.json``."""
        return _uri(self.folder, self.generation)

    def check(self) -> None:
        """Raise LeaseLost if it is no longer held: to be called before anything is committed."""
        last = _last(self.folder)
        holder = _read(self.folder, last) if last == self.generation else None
        if holder is None or holder.name != self.holder:
            other = _read(self.folder, last) if last else None
            raise LeaseLost(
                f"{storage.mask(os.path.dirname(self.folder))}: this run did not renew its lease in time, and "
                f"{f'another took over ({other})' if other else 'another run took over'}; what was committed stays"
            )


def holder(output: str) -> Holder | None:
    """Who holds the lease of ``output``, or has left it behind; None where nobody does.

    Raises:
        RegradError: the storage refused or failed.
    """
    folder = storage.join(output, "lease")
    last = _last(folder)
    return _read(folder, last) if last else None


@contextlib.contextmanager
def hold(output: str, say: Callable[[str], None] = print, seconds: float = SECONDS) -> Iterator[Lease]:
    """Hold the lease of ``output`` and renew it, in a thread, until the context ends.

    A lease whose holder is dead on this machine is taken over at once; one that is not renewed, after its time.

    Args:
        say: is told that it takes a while.

    Raises:
        UsageError: another run holds the lease and renews it.
        RegradError: the storage refused or failed.
    """
    folder = storage.join(output, "lease")
    holder = Holder.this_process(seconds)
    _ours.add(holder.name)
    try:
        lease = _acquire(output, folder, holder, say)
        ended = threading.Event()
        thread = threading.Thread(target=_renew, args=(lease, holder, ended), name="regrad-lease", daemon=True)
        thread.start()
        try:
            yield lease
        finally:
            ended.set()
            if not retry.in_outage():  # a lease that is left over is taken over
                thread.join()
                with contextlib.suppress(RegradError):
                    lease.check()
                    storage.remove(lease.uri)
    finally:
        _ours.discard(holder.name)


def _acquire(output: str, folder: str, holder: Holder, say: Callable[[str], None]) -> Lease:
    while True:
        last = _last(folder)
        if last:
            _wait_for_end(output, folder, last, say)
        lease = Lease(folder, last + 1, holder.name)
        content = _content(holder)
        storage.create(lease.uri, content)
        if storage.create(lease.uri, content):  # a second time, which no store that knows conditions lets pass
            time.sleep(_SETTLE_SECONDS)
        current = _read(folder, lease.generation)
        if current is None or current.name != holder.name:
            continue  # another was first
        if last:
            storage.remove(_uri(folder, last))
        return lease


def _wait_for_end(output: str, folder: str, generation: int, say: Callable[[str], None]) -> None:
    """Return when the lease of this generation has ended.

    Raises:
        UsageError: its holder renews it.
    """
    first = _read(folder, generation)
    if first is None or first.is_dead_here():
        return
    end = time.monotonic() + first.seconds
    say(
        f"{storage.mask(output)}: another run may be at work ({first}); waiting up to {first.seconds:.0f} s to see "
        "whether it lives"
    )
    while time.monotonic() < end:
        time.sleep(first.seconds / _LOOKS)
        current = _read(folder, generation)
        if current is None:
            return
        if current != first:
            raise UsageError(
                f"{storage.mask(output)}: another run is at work on it ({current}); wait for its end, or use another "
                "--output"
            )


def _renew(lease: Lease, holder: Holder, ended: threading.Event) -> None:
    beat = 0
    while not ended.wait(holder.seconds / _RENEWALS):
        try:
            lease.check()
            beat += 1
            storage.write_atomically(lease.uri, _content(replace(holder, beat=beat)))
        except LeaseLost:
            return  # the workers find out before they commit
        except RegradError:
            continue  # the storage may come back in time


def _last(folder: str) -> int:
    """The highest generation there is; 0 for none."""
    names = (name.removesuffix(".json") for name in storage.list_files(folder, ".json"))
    return max((int(name) for name in names if name.isdecimal()), default=0)


def _read(folder: str, generation: int) -> Holder | None:
    """Who holds this generation; None when it is gone, or was never written by us."""
    try:
        return Holder(**json.loads(storage.read_bytes(_uri(folder, generation))))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _uri(folder: str, generation: int) -> str:
    return storage.join(folder, f"{generation}.json")


def _content(holder: Holder) -> bytes:
    fields: dict[str, Any] = asdict(holder)
    return (json.dumps(fields, indent=2) + "\n").encode()


def _boot() -> str:
    """Of this start of the machine, and of the process numbers that are seen (containers have their own)."""
    parts = []
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            parts.append(file.read().strip())
    except OSError:
        parts.append(f"{psutil.boot_time():.0f}")
    return " ".join(parts)
