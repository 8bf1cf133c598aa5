"""Finished units on their way into the output, by a thread of its own: small neighbours together."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, NamedTuple

from regrad import storage, table
from regrad.errors import RegradError
from regrad.ledger import bundles
from regrad.ledger.commit import NewUnit
from regrad.ledger.lease import Lease
from regrad.pipeline.account import Account
from regrad.pipeline.results import Committed, SourceChanged
from regrad.storage import at_once

Outcome = Committed | SourceChanged


class _Ended(NamedTuple):
    """A finished account, and the record of it from when it was."""

    account: Account
    record: dict[str, Any]


class Commits:
    """Commits the units of finished accounts, in their order. Leaving the context ends what is being written.

    Neighbours that have together no more than ``unit_rows`` rows, as a unit cut from a large source has, are committed
    together (:mod:`regrad.ledger.bundles`): what a kill costs stays the same.

    Args:
        provenance: what the footers name.
        lease: of the output, asked before anything is committed.
    """

    def __init__(self, output: str, provenance: Mapping[str, Any], unit_rows: int, lease: Lease | None):
        self._output, self._provenance, self._unit_rows = output, provenance, unit_rows
        self._allowed = lease.check if lease else lambda: None
        self._small: list[_Ended] = []
        self._pool = ThreadPoolExecutor(1, "regrad-commit")
        self._begun: deque[Future[list[Outcome]]] = deque()
        self._failed: BaseException | None = None

    def __enter__(self) -> Commits:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def add(self, account: Account) -> None:
        """Commit this one, at once or with those that follow."""
        ended = _Ended(account, account.record())
        if account.changed or account.unit.replaces or 2 * account.rows_in > self._unit_rows:
            self._begin([ended])
            return
        rows = sum(small.account.rows_in for small in self._small)
        if rows + account.rows_in > self._unit_rows or len(self._small) == bundles.MOST:
            self._begin_small()
        self._small.append(ended)

    def ended(self) -> Iterator[Outcome]:
        """What has been committed meanwhile.

        Raises:
            RegradError: the storage failed.
        """
        while self._begun and self._begun[0].done():
            yield from self._begun.popleft().result()

    def rest(self) -> Iterator[Outcome]:
        """Commit what is left, and wait for it.

        Raises:
            RegradError: the storage failed.
        """
        self._begin_small()
        while self._begun:
            yield from self._begun.popleft().result()

    def _begin_small(self) -> None:
        small, self._small = self._small, []
        if small:
            self._begin(small)

    def _begin(self, some: Sequence[_Ended]) -> None:
        self._begun.append(self._pool.submit(self._commit, some))

    def _commit(self, some: Sequence[_Ended]) -> list[Outcome]:
        if self._failed:
            raise self._failed  # where the store hangs, each further try would take a timeout
        try:
            units = list(at_once.answers(lambda one: self._new_unit(*one), some))
            bundles.write_units(self._output, [unit for unit in units if unit], self._allowed)
        except BaseException as error:
            self._failed = error
            raise
        return [
            Committed(one.record) if unit else SourceChanged(one.account.unit.source)
            for one, unit in zip(some, units, strict=True)
        ]

    def _new_unit(self, account: Account, record: dict[str, Any]) -> NewUnit | None:
        """What to commit; None where the source is no longer what was planned."""
        unit = account.unit
        if account.changed or (account.reader and account.reader.identity() != unit.identity):
            return None
        # A row without a number stands for the rest of a file that could not be read on.
        whole = all(row is not None for _, _, row, *_ in account.quarantined)
        if whole and unit.rows is not None and account.rows_in != unit.rows:
            raise RegradError(
                f"{storage.mask(unit.source)}: {account.rows_in} rows read where {unit.rows} were planned; the file "
                "changed while it was read, run again"
            )
        footer = table.footer(self._provenance, unit=unit.key, identity=unit.identity)
        return NewUnit(record, *account.tables(), footer, account.embeddings(), unit.replaces)
