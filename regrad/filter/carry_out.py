"""A rule carried out on a run: the two lists, and with them, where they are wanted, shards of the kept images alone.

An output holds one filter: ``filter.json`` says of which run and rule. Everything is done under the output's lease, and
the same command goes on where an earlier one stopped.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from regrad import formatting, storage
from regrad.cli import say
from regrad.errors import RegradError, UsageError
from regrad.filter import rules, shards
from regrad.handover.give import Given, giving
from regrad.ledger import commit, contents, lease
from regrad.reading.samples import Columns
from regrad.runs.scored import Run, codes, integers

VERSION = 1


@dataclass(frozen=True)
class Outcome:
    """What was sorted out, and the shards: how many there are, how many of them were written now, and their rows; and
    what was handed over.
    """

    sorting: rules.Sorting
    shards: int = 0
    written: int = 0
    rows: int = 0
    given: Given | None = None


@dataclass(frozen=True)
class Wanted:
    """A list that is to be handed over: ``keep`` or ``drop``, in a form by its name."""

    form: str
    kind: str = rules.KEEP

    def folder(self, output: str) -> str:
        """Where it goes."""
        return storage.join(output, f"{self.kind}-{self.form}")


def carry_out(
    run: Run,
    rule: rules.Rule,
    output: str,
    write_shards: bool = False,
    replace: bool = False,
    ray_address: str | None = None,
    workers: int | None = None,
    verbose: bool = False,
    hand_over: Wanted | None = None,
) -> Outcome:
    """Write ``keep.parquet`` and ``drop.parquet``, with ``write_shards`` the shards, on Ray, and what is to be handed
    over: of the images that could be scored.

    Raises:
        UsageError: the output holds another filter (unless ``replace``), or another run is at work on it.
        RegradError: a source has changed since it was scored, or the storage or the cluster failed.
    """
    about = {"filter_version": VERSION, "run": storage.mask(run.output), "rule": rule.text}
    with lease.hold(output, say) as held:
        _refuse_another(output, about, replace)
        _write(output, about | {"status": "running", "exit_code": None, "started": formatting.now()})
        kept = shards.Kept()

        def take(kind: str, rows: pa.Table) -> None:
            listed(kind, rows)
            if write_shards and kind == rules.KEEP and len(rows):
                _keep(kept, rows)
            give(kind, rows)

        with rules.lists(output) as listed, _handing_over(run, rule, output, hand_over) as (give, given):
            sorting = rules.sort_out(run, rule, take)
        outcome = Outcome(sorting, given=given)
        if write_shards:
            outcome = _write_shards(run, output, kept, outcome, held, (ray_address, workers, verbose))
        held.check()
        counts = {"kept": sorting.kept, "dropped": sorting.dropped, "quarantined": sorting.quarantined}
        made = {"shards": outcome.shards, "rows": outcome.rows} if write_shards else None
        ended = {"status": "done", "exit_code": 0, "finished": formatting.now()}
        handed = asdict(hand_over) | asdict(given) if hand_over and given else None
        told = {"counts": counts, "shards": made, "handed_over": handed, "reasons": sorting.reasons}
        _write(output, about | ended | told)
    return outcome


@contextlib.contextmanager
def _handing_over(
    run: Run, rule: rules.Rule, output: str, wanted: Wanted | None
) -> Iterator[tuple[Callable[[str, pa.Table], None], Given | None]]:
    """What takes the rows of both lists and hands over those that are wanted, and what it has handed over."""
    if wanted is None:
        yield lambda kind, rows: None, None
        return
    with giving(run, wanted.form, rule.score, wanted.folder(output)) as giver:

        def give(kind: str, rows: pa.Table) -> None:
            if kind == wanted.kind and "confidence" in rows.column_names:
                giver.take(rows)

        yield give, giver.given


def _keep(kept: shards.Kept, rows: pa.Table) -> None:
    places, names = codes(rows["source"])
    numbers = integers(rows["row"])
    for place, name in enumerate(names):
        kept.add(name, numbers[places == place])


def _write_shards(
    run: Run,
    output: str,
    kept: shards.Kept,
    outcome: Outcome,
    held: lease.Lease,
    cluster: tuple[str | None, int | None, bool],
) -> Outcome:
    from regrad.cluster.tasks import each  # seconds to import: where all is done, nobody should wait for it

    columns = Columns.of(run.info)
    ledger = commit.Ledger.read(run.output)
    wanted = list(shards.pieces(kept, ledger.records(sorted(ledger.keys)), ledger.ids, columns))
    todo = shards.settle(output, wanted)
    written = sum(
        1 for _ in each(shards.write, [shards.task(piece, output, columns, held) for piece in todo], *cluster)
    )
    _check(output, wanted, outcome.sorting.kept)
    return Outcome(outcome.sorting, len(wanted), written, sum(piece.count for piece in wanted), outcome.given)


def _check(output: str, wanted: Sequence[shards.Piece], kept: int) -> None:
    """Fail where the output does not hold every kept image once."""
    rows = sum(piece.count for piece in wanted)
    there = set(storage.list_files(storage.join(output, "shards")))
    names = [piece.name for piece in wanted]
    if rows != kept or there != set(names) or len(there) != len(names):
        raise RegradError(
            f"{storage.mask(output)}: {rows} rows in {len(there)} shards, where {kept} in {len(names)} were kept; run "
            "the same command again, and if that does not mend it, report this as a bug"
        )
    if contents.committed(output) != {piece.key for piece in wanted}:
        raise RegradError(f"{storage.mask(output)}: the ledger does not name the shards; run the same command again")


def _refuse_another(output: str, about: dict[str, Any], replace: bool) -> None:
    try:
        held = json.loads(storage.read_bytes(storage.join(output, "filter.json")))
    except FileNotFoundError:
        if "run.json" in storage.list_files(output, ".json"):
            raise UsageError(f"{storage.mask(output)}: holds a run of regrad score; use another --output") from None
        return
    except ValueError as error:
        raise RegradError(
            f"{storage.mask(output)}/filter.json: not valid JSON ({error}); use another --output"
        ) from error
    other = [f"{key} {held.get(key)}, now {value}" for key, value in about.items() if held.get(key) != value]
    if other and not replace:
        raise UsageError(
            f"{storage.mask(output)}: holds another filter: {'; '.join(other)}; use another --output, or --replace"
        )


def _write(output: str, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    storage.write_atomically(storage.join(output, "filter.json"), text.encode())
