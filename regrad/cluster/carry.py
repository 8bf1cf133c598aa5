"""Tasks carried out on Ray or in this process, in one session however often there are some."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from regrad.cli import loading
from regrad.settings.places import NO_CLUSTER

_Item = dict[str, Any]
_Each = Callable[[Callable[[_Item], _Item], Iterable[_Item]], Iterator[_Item]]


@contextlib.contextmanager
def carrying_out(address: str | None = None, workers: int | None = None, verbose: bool = False) -> Iterator[_Each]:
    """:func:`regrad.cluster.tasks.each` with these, in one session of Ray however often it is called.

    Raises:
        RegradError: no cluster answers at the address, or none could be started.
    """
    if address == NO_CLUSTER:
        yield lambda function, items: map(function, items)
        return

    with loading():
        from regrad.cluster.sessions import connected
        from regrad.cluster.tasks import each

    with connected(address, workers, verbose):
        yield functools.partial(each, address=address, workers=workers, verbose=verbose)
