"""Is an output what it says it is: ledger against parts, parts against their footers and rows, all against the inputs.

Nothing is believed: every ledger record's key is made again from its content, every part is read, every row counted.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from regrad import storage, table
from regrad.errors import RegradError
from regrad.formatting import count
from regrad.ledger import audited, commit, contents, fold, lease, merge
from regrad.ledger.files import DAMAGE, UnitRows
from regrad.ledger.rows import Rows
from regrad.pipeline import manifest
from regrad.pipeline.plan import make_plan, unit_key
from regrad.reading.formats import format_of
from regrad.reading.inputs import Listing, list_inputs
from regrad.reading.naming import leftovers
from regrad.reading.samples import Columns
from regrad.storage import at_once

_SHOWN = 3  # repeated ids named in one line


@dataclass(frozen=True)
class Problem:
    """What is wrong, in one line.

    Attributes:
        unit: the key of the unit that scoring again would mend, if one would.
        repairable: whether :func:`repair` and another run mend it.
    """

    text: str
    unit: str | None = None
    repairable: bool = True


@dataclass
class Findings:
    """What :func:`check` found: what is wrong, what a user may want to know, and how much there is."""

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    units: int = 0
    rows_scored: int = 0
    rows_quarantined: int = 0


@dataclass
class _Rows:
    """The rows of one unit as its parts hold them."""

    record: dict[str, Any]
    problems: list[str]
    ids: list[Any]  # of the scored rows, in chunks
    numbers: list[Any]

    def wrong(self) -> Iterator[Problem]:
        """What is wrong with it, each with the name of the unit."""
        where = f"unit {self.record['unit']} ({storage.mask(str(self.record.get('source')))})"
        return (Problem(f"{where}: {problem}", self.record["unit"]) for problem in self.problems)


def check(output: str) -> Findings:
    """Count everything at ``output`` again.

    Memory: the ids of one source at a time.

    Raises:
        UsageError: there is no run, or one of another schema version.
        RegradError: the storage refused or failed.
    """
    run = table.read_run(output)
    findings = Findings()
    ledger = commit.Ledger.read(output)
    keys = sorted(ledger.keys)
    salt, kinds = _salt(run), contents.kinds_kept(run["config"])
    judged = [_judged(key, record, salt) for key, record in zip(keys, _records(ledger, keys), strict=True)]
    sound = [item for item in judged if isinstance(item, dict)]
    findings.problems += [item for item in judged if isinstance(item, Problem)]
    wrong: list[tuple[str, list[Problem]]] = []
    origins = _Origins(output)
    units = (_unit(record, parts, run, origins) for record, parts in _parts(ledger, sound, kinds))
    for _, alike in itertools.groupby(units, key=lambda unit: unit.record["unit"][: commit.SOURCE_DIGITS]):
        ordered = sorted(alike, key=lambda unit: (unit.record["source"], unit.record["start"]))
        for source, some in itertools.groupby(ordered, key=lambda unit: unit.record["source"]):
            wrong.append((source, list(_source(source, list(some)))))
    findings.problems += itertools.chain(*(problems for _, problems in sorted(wrong, key=lambda item: item[0])))
    findings.problems += origins.problems
    findings.units = len(keys)
    findings.rows_scored = sum(record["rows_scored"] for record in sound)
    findings.rows_quarantined = sum(record["rows_quarantined"] for record in sound)
    findings.problems += _totals(run, sound, keys)
    findings.problems += _strays(output, run, keys, sound, findings.notes)
    _inputs(run, output, salt, sound, findings)
    return findings


def repair(output: str, problems: Iterable[Problem]) -> int:
    """Drop the units that ``problems`` name, so that the next run scores them again; returns how many.

    Raises:
        UsageError: a run is at work on the output.
        RegradError: the storage refused or failed.
    """
    units = sorted({problem.unit for problem in problems if problem.unit})
    with lease.hold(output) as held:
        audited.keep(output, units, lambda key: None)  # a unit comes back under its name, which its night keeps
        commit.retire(output, units)
        run = table.read_run(output)
        fold.fold(output, held.check)
        merge.merge(output, held.check, merge.ONLY_WORN, contents.kinds_kept(run["config"]))
        commit.sweep(output, contents.committed(output), commit.WRITTEN)
        if "counts" in run:  # the next run counts for itself where it finds no digest
            table.write_run(output, run | {"counts": {**run["counts"], "ledger": None}})
    return len(units)


# -- a unit ----------------------------------------------------------------------------------------------------------


def _records(ledger: commit.Ledger, keys: list[str]) -> list[dict[str, Any] | RegradError]:
    """The records, or why one cannot be read."""

    def one(key: str) -> dict[str, Any] | RegradError:
        try:
            return ledger.records([key])[0]
        except RegradError as error:
            return error

    try:
        return [*ledger.records(keys)]
    except RegradError:
        return list(at_once.answers(one, keys))


def _judged(key: str, record: dict[str, Any] | RegradError, salt: str) -> dict[str, Any] | Problem:
    try:
        if isinstance(record, RegradError):
            raise record
        counts = [record[name] for name in ("rows_in", "rows_scored", "rows_quarantined")]
        made = unit_key(record["source"], record["identity"], record["start"], record["stop"], salt)
    except (RegradError, KeyError, TypeError) as error:
        return Problem(f"unit {key}: {storage.reason(error)}", key)
    if record["unit"] != key or made != key:
        return Problem(f"unit {key}: its record does not belong to this name, model and configuration", key)
    if counts[0] != counts[1] + counts[2]:
        return Problem(f"unit {key}: {counts[0]} rows read, but {counts[1]} scored and {counts[2]} quarantined", key)
    return record


def _parts(
    ledger: commit.Ledger, records: Sequence[dict[str, Any]], kinds: Sequence[str]
) -> Iterator[tuple[dict[str, Any], dict[str, UnitRows | Exception]]]:
    """Of each unit, its rows of every kind that it has rows of, or why they cannot be read."""
    keys = {record["unit"] for record in records}
    streams = {kind: Rows(ledger.output, kind, keys, ledger.held).by_unit() for kind in kinds}
    ahead = {kind: next(stream, None) for kind, stream in streams.items()}
    for record in records:
        parts: dict[str, UnitRows | Exception] = {}
        for kind, stream in streams.items():
            item = ahead[kind]
            if item is not None and item[0].unit == record["unit"]:
                parts[kind] = item[1]
                ahead[kind] = next(stream, None)
        yield record, parts


class _Origins:
    """Where rows come from, by what is said of them: the whole of it, or its name, which is read once.

    Attributes:
        problems: of names that cannot be read.
    """

    def __init__(self, output: str):
        self.problems: list[Problem] = []
        self._output = output
        self._known: dict[str, dict[str, Any] | None] = {}

    def of(self, said: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The provenance; None where it cannot be read."""
        name = said.get("provenance")
        if name is None:  # versions before names wrote it in every file
            return said
        if name not in self._known:
            try:
                self._known[name] = table.read_provenance(self._output, name)
            except RegradError as error:
                self._known[name] = None
                self.problems.append(Problem(str(error), repairable=False))
        return self._known[name]


def _unit(
    record: dict[str, Any], parts: Mapping[str, UnitRows | Exception], run: dict[str, Any], origins: _Origins
) -> _Rows:
    unit = _Rows(record, [], [], [])
    numbers: dict[str, list[Any]] = {}
    for kind, part in parts.items():
        expected = record[contents.COUNTED[kind]]
        try:
            rows = _sound(part, kind, record, run, origins)
        except FileNotFoundError:
            unit.problems.append(f"no {kind} part, but {expected} rows in the ledger")
            continue
        except DAMAGE as error:
            unit.problems.append(f"its {kind} part is damaged: {storage.reason(error)}")
            continue
        if rows.num_rows != expected:
            unit.problems.append(f"{rows.num_rows} rows in its {kind} part, but {expected} in the ledger")
        if pc.any(pc.not_equal(rows["source"], record["source"])).as_py():
            unit.problems.append(f"its {kind} part holds rows of another source")
        unit.ids += rows["id"].chunks if kind == "scores" else []
        numbers[kind] = rows["row"].chunks
    unit.numbers += [chunk for kind in contents.ONCE for chunk in numbers.get(kind, [])]
    scored, embedded = (numbers.get(kind) for kind in ("scores", "embeddings"))
    if scored and embedded and not np.array_equal(_numbers(scored), _numbers(embedded)):
        unit.problems.append("its embeddings are of other rows than its scores")
    inside = _numbers(unit.numbers)
    stop = np.inf if record["stop"] is None else record["stop"]
    if len(inside) and (inside.min() < record["start"] or inside.max() >= stop):
        unit.problems.append(f"rows outside {record['start']} to {record['stop']}")
    if len(np.unique(inside)) != len(inside):
        unit.problems.append(f"{len(inside) - len(np.unique(inside))} rows are there twice")
    return unit


def _sound(
    part: UnitRows | Exception, kind: str, record: dict[str, Any], run: dict[str, Any], origins: _Origins
) -> pa.Table:
    """The rows, if the footer they are under says that they are of this unit and run, and they have the columns.

    Raises:
        FileNotFoundError: there are none.
        One of DAMAGE: they are another's, lack a column, or cannot be read.
    """
    if isinstance(part, Exception):
        raise part
    if (part.said["unit"], part.said["identity"]) != (record["unit"], record["identity"]):
        raise ValueError("its footer names another unit")
    origin = origins.of(part.said)
    models = [said["model"]["fingerprint"] for said in (part.said, origin) if said and "model" in said]
    if set(models) - {run["model"]["fingerprint"]} or (origin and _salt(origin) != _salt(run)):
        raise ValueError("its footer names another model or configuration")
    missing = [field.name for field in table.schema_of(kind, run) if field not in list(part.rows.schema)]
    if missing:
        raise ValueError(f"without the column {', '.join(missing)}, or with another type")
    return part.rows


def _salt(said: Mapping[str, Any]) -> str:
    """All that the rows of a run, or of a file that says where it comes from, depend on besides the images."""
    return manifest.salt(said["model"]["fingerprint"], said["config"], said["plan"])


def _numbers(chunks: list[Any]) -> np.ndarray[Any, Any]:
    """The row numbers there are; rows of a file that could not be read on have none."""
    if not chunks:
        return np.empty(0, np.int64)
    return pa.chunked_array(chunks, pa.int64()).drop_null().to_numpy()


# -- a source, the run, the inputs -----------------------------------------------------------------------------------


def _source(source: str, units: list[_Rows]) -> Iterator[Problem]:
    for unit in units:
        yield from unit.wrong()
    for before, after in itertools.pairwise(units):
        end = before.record["stop"]
        if end is None or end > after.record["start"]:
            where = f"rows {after.record['start']} to {after.record['stop']}"
            yield Problem(f"{storage.mask(source)}: two units hold {where}", after.record["unit"])
    if not any(unit.problems for unit in units):  # which may be why
        yield from _repeated_ids(source, units)


def _repeated_ids(source: str, units: list[_Rows]) -> Iterator[Problem]:
    """Ids that are scored twice. (One that was refused as repeated is in quarantine beside the first.)"""
    counts = pc.value_counts(pa.chunked_array([chunk for unit in units for chunk in unit.ids], pa.string()))
    repeated = pc.struct_field(counts.filter(pc.greater(pc.struct_field(counts, 1), 1)), 0)
    if len(repeated):
        some = ", ".join(storage.mask(str(name)) for name in repeated[:_SHOWN].to_pylist())
        yield Problem(
            f"{storage.mask(source)}: {len(repeated)} ids were scored twice or more ({some}); --id-column names others",
            repairable=False,
        )


_UNKNOWN = "no ledger record knows its rows"


def _strays(
    output: str, run: dict[str, Any], keys: list[str], records: Sequence[dict[str, Any]], notes: list[str]
) -> Iterator[Problem]:
    """Files that no unit has. A run that was cut short leaves some; after one that came to its end, their rows are
    in excess."""
    known = {*keys}
    stray = commit.left_over(output, keys)
    files = {uri: uri.rpartition("/")[2] for uri in stray if _has_counted(run, keys)}
    parts = [uri for uri, name in files.items() if name.startswith(("part-", "merged-"))]
    for uri in parts:
        moved = commit.unit_of(files[uri]) in known
        yield Problem(f"{storage.mask(uri)}: {'its rows are in another file too' if moved else _UNKNOWN}")
    for kind, counted in contents.COUNTED.items():
        empty = {record["unit"] for record in records if not record[counted]}
        for name in storage.list_files(storage.join(output, kind)) if empty else ():
            if commit.unit_of(name) in empty:
                yield Problem(f"{storage.mask(output)}/{kind}/{name}: its unit has no such rows", commit.unit_of(name))
    if len(stray) > len(parts):
        notes.append(f"{len(stray) - len(parts)} files of attempts that were cut short; the next run removes them")


def _has_counted(run: dict[str, Any], keys: list[str]) -> bool:
    """Whether a run came to its end with these units; one that was cut short has not counted, the next one will."""
    return run.get("counts", {}).get("ledger") == manifest.ledger_digest(keys)


def _totals(run: dict[str, Any], records: list[dict[str, Any]], keys: list[str]) -> Iterator[Problem]:
    if not _has_counted(run, keys):
        return
    if len(records) != len(keys):
        return
    for name, value in manifest.totals(records).items():
        said = run["counts"].get(name, {})
        if said != value:
            yield Problem(f"run.json says {name} {said}, the ledger {_shown(value)}")


@dataclass(frozen=True)
class _Counted(commit.Ledger):
    """The units whose records are sound, which were read already."""

    keys: dict[str, dict[str, Any]]

    def records(self, keys: Iterable[str]) -> list[dict[str, Any]]:
        """Those of ``keys``."""
        return [self.keys[key] for key in keys]


def _inputs(run: dict[str, Any], output: str, salt: str, records: list[dict[str, Any]], findings: Findings) -> None:
    """Add what the inputs hold that the output does not, or no longer as it was."""
    config = run["config"]
    columns = Columns.of(run)
    held = {record["unit"]: record for record in records}
    try:
        listing = list_inputs(run["inputs"], columns, output)
        beside = run.get("elsewhere")  # of an audit: what its baseline holds is not scored again
        others = commit.Ledger.read(beside) if beside else None
        plan = make_plan(listing.sources, config["unit_rows"], salt, _Counted(output, held), elsewhere=others)
        _left_out(run, listing, findings)
        for record in (held[key] for key in plan.done):
            findings.problems += _counted_again(record, columns)
    except RegradError as error:
        findings.notes.append(f"the inputs could not be compared: {error}")
        return
    if plan.obsolete:
        changed = count(len(plan.obsolete), "unit")
        findings.notes.append(f"{changed} of sources that have changed since; the next run scores them anew")
    if plan.pending:
        rows = sum(unit.rows or 0 for unit in plan.pending)
        known = f" ({count(rows, 'row')})" if rows else ""
        findings.notes.append(f"not scored yet: {count(len(plan.pending), 'unit')}{known}")


def _shown(value: Any) -> Any:
    return dict(value) if isinstance(value, Counter) else value


def _left_out(run: dict[str, Any], listing: Listing, findings: Findings) -> None:
    """Hold the run to what it says it left out of its inputs."""
    if "left_out" not in run:  # of an earlier version, or one that was cut short
        return
    now = manifest.seen(listing, run["counts"])
    if now["left_out"] != run["left_out"]:
        told = leftovers.in_words(listing.skipped) if listing.skipped else "nothing"
        findings.notes.append(f"other files beside the data than the run left out; now {told}")
    elif now["skipped"] != run["skipped"]:
        said = f"run.json says it left out {run['skipped']}, there are {dict(now['skipped'])}"
        findings.problems.append(Problem(said, repairable=False))


def _counted_again(record: dict[str, Any], columns: Columns) -> Iterator[Problem]:
    """The samples of a unit that is a whole source; one that cannot be read on has a row in quarantine instead."""
    if record["stop"] is None and not record["rows_quarantined"]:
        reader = format_of(record["source"])(record["source"], columns)
        samples = reader.count()[0] - record["start"]
        where = storage.mask(record["source"])
        if reader.skipped != record.get("skipped", reader.skipped):
            told = f"it has {dict(reader.skipped)} that are no row, the ledger {record['skipped']}"
            yield Problem(f"{where}: {told}", record["unit"])
        if samples != record["rows_in"]:
            yield Problem(f"{where}: {samples} samples, but {record['rows_in']} rows in the ledger", record["unit"])
