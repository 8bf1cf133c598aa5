"""With what a search is done: who carries its tasks out, and where they lay down what others of them need."""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from regrad import storage

#: What a task is about: its ``source`` for messages, and whatever else the function needs that does it.
Task = dict[str, Any]
#: A function, its tasks -> what it gives for each of them, in any order; it may do a task twice.
Each = Callable[[Callable[[Task], Task], Iterable[Task]], Iterator[Task]]


def one_by_one(function: Callable[[Task], Task], tasks: Iterable[Task]) -> Iterator[Task]:
    """One task after the other, in this process."""
    yield from map(function, tasks)


@dataclass(frozen=True)
class Means:
    """Of one search.

    Attributes:
        each: carries tasks out.
        folder: which all who do so can reach; None: they are on this machine, and what they need lies in ``TMPDIR``.
    """

    each: Each = one_by_one
    folder: str | None = None

    @contextlib.contextmanager
    def scratch(self) -> Iterator[str]:
        """A folder for this search alone, which goes with the context."""
        if self.folder is None:
            with tempfile.TemporaryDirectory(prefix="regrad-duplicates-") as local:
                yield local
            return
        shared = storage.join(self.folder, f"{storage.TEMPORARY_PREFIX}duplicates-{uuid.uuid4().hex}")
        try:
            yield shared
        finally:
            storage.remove_folder(shared)
