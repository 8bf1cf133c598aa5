"""A rule carried out on a run: the two lists, and with them, where they are wanted, shards of the kept images alone.

An output holds one filter: ``filter.json`` says of which run and rule. Everything is done under the output's lease, and
the same command goes on where an earlier one stopped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from regrad import formatting, storage
from regrad.cli import say
from regrad.errors import RegradError, UsageError
from regrad.filter import rules, shards
from regrad.ledger import commit, contents, lease
from regrad.reading.samples import Columns
from regrad.runs.scored import Run, codes, integers

VERSION = 1


@dataclass(frozen=True)
class Outcome:
    """What was sorted out, and the shards: how many there are, how many of them were written now, and their rows."""

    sorting: rules.Sorting
    shards: int = 0
    written: int = 0
    rows: int = 0


def carry_out(
    run: Run,
    rule: rules.Rule,
    output: str,
    write_shards: bool = False,
    replace: bool = False,
    ray_address: str | None = None,
    workers: int | None = None,
    verbose: bool = False,
) -> Outcome:
    """Write ``keep.parquet`` and ``drop.parquet``, and with ``write_shards`` the shards, on Ray.

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

        with rules.lists(output) as listed:
            sorting = rules.sort_out(run, rule, take)
        outcome = Outcome(sorting)
        if write_shards:
            outcome = _write_shards(run, output, kept, sorting, held, (ray_address, workers, verbose))
        held.check()
        counts = {"kept": sorting.kept, "dropped": sorting.dropped, "quarantined": sorting.quarantined}
        made = {"shards": outcome.shards, "rows": outcome.rows} if write_shards else None
        ended = {"status": "done", "exit_code": 0, "finished": formatting.now()}
        _write(output, about | ended | {"counts": counts, "shards": made, "reasons": sorting.reasons})
    return outcome


def _keep(kept: shards.Kept, rows: pa.Table) -> None:
    places, names = codes(rows["source"])
    numbers = integers(rows["row"])
    for place, name in enumerate(names):
        kept.add(name, numbers[places == place])


def _write_shards(
    run: Run,
    output: str,
    kept: shards.Kept,
    sorting: rules.Sorting,
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
    _check(output, wanted, sorting.kept)
    return Outcome(sorting, len(wanted), written, sum(piece.count for piece in wanted))


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
