"""Work in a process of its own, with a time limit: what it gives piece by piece stays, whatever becomes of it."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

Work = Callable[..., Iterator[Any]]


@dataclass(frozen=True)
class Ended:
    """The last piece: how the work ended.

    Attributes:
        stopped: by the time limit.
        code: of the process, negative if a signal ended it; 0 for one that is through, and for a stopped one.
    """

    stopped: bool
    code: int = 0


def in_a_process(work: Work, arguments: Sequence[Any], seconds: float, method: str) -> Iterator[Any]:
    """The pieces of ``work(*arguments)`` as they come, then :class:`Ended`.

    Args:
        work: gives pieces that can be pickled.
        arguments: of ``work``.
        seconds: after which the process is killed.
        method: ``fork`` has all that is imported already, ``spawn`` a GPU of its own.
    """
    context: Any = multiprocessing.get_context(method)
    mine, its = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(its, work, tuple(arguments)))
    end = time.monotonic() + seconds
    process.start()
    its.close()
    try:
        while mine.poll(max(0.0, end - time.monotonic())):
            yield mine.recv()
        yield Ended(stopped=True)
    except EOFError:  # it is through
        process.join()
        yield Ended(stopped=False, code=process.exitcode or 0)
    finally:
        process.kill()
        process.join()


def _send(connection: Connection, work: Work, arguments: tuple[Any, ...]) -> None:
    for piece in work(*arguments):
        connection.send(piece)
