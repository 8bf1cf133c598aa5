"""One audit from settings to files: score what is new, compare, write, and take the night into the history."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from regrad import formatting, storage, table
from regrad.audit import again, gates, history, night, notify, page
from regrad.audit.options import Checked
from regrad.cli import say
from regrad.errors import RegradError, UsageError
from regrad.ledger import commit, lease
from regrad.maps import chart
from regrad.pages import thumbnails
from regrad.pipeline import manifest
from regrad.pipeline.options import Options
from regrad.pipeline.prepare import Job, describe, prepare
from regrad.pipeline.run import RunOutcome, ScoreUnits, execute
from regrad.reading.formats import fetcher
from regrad.reading.inputs import absolute
from regrad.runs import rule, scored
from regrad.runs.sift import Flags
from regrad.settings.kinds import exceeds
from regrad.settings.option import MEANING, VALUE


@dataclass(frozen=True)
class Planned:
    """What is known before anything is scored: the settings that are the audit's own, checked.

    Attributes:
        job: the scoring of what is new.
    """

    job: Job
    baseline: night.Baseline
    checked: Checked

    def describe(self) -> str:
        """In words, after the plan of the scoring."""
        flag, known = self.baseline.threshold, self.baseline.survey
        return "\n".join(
            [
                describe(self.job),
                f"night      {self.checked.night}",
                f"baseline   {storage.mask(known.run.output)}, {known.images} images",
                f"threshold  {flag.score} > {flag.value:.4g}",
                f"gates      {'; '.join(gate.text for gate in self.checked.gates) or 'none'}",
            ]
        )


def needs_baseline(options: Options) -> bool:
    """Whether this run is to make the baseline: it was asked to, and none is complete."""
    held = manifest.existing(absolute(options.baseline)) if options.make_baseline else None
    return options.make_baseline and (held is None or held["status"] != "done")


def make_baseline(options: Options) -> Job:
    """The scoring of INPUT as the baseline."""
    return prepare(Options(options.inputs, options.values | {"output": options.baseline}))


def plan(options: Options, checked: Checked) -> Planned:
    """Look at inputs, output and baseline; nothing is written.

    Raises:
        UsageError: the baseline is of another model or other settings, or is not complete, or what ``prepare`` says.
        RegradError: the storage refused or failed.
    """
    baseline = absolute(options.baseline)
    try:
        info = table.read_run(baseline)
    except UsageError as error:
        raise UsageError(f"--baseline {error}; --make-baseline makes it of INPUT") from error
    # What the baseline holds is not new: the first night may be of the same bucket.
    job = prepare(options, commit.Ledger.read(baseline))
    score = options.score or options.scores[0]
    _check_alike(info, job, baseline)
    known = scored.load_run(night.BASELINE, baseline)
    if score not in known.scores:
        raise UsageError(
            f"--baseline {storage.mask(baseline)}: has the scores {', '.join(known.scores)}, not {score}; score it anew"
        )
    _check_night(job, checked.night)
    return Planned(job, night.calibrate(known, score, rule.parse_rule(options.threshold)), checked)


def _check_night(job: Job, name: str) -> None:
    """An earlier night is audited again only where all that it counted is still there: else its row would lose some."""
    nights, pending = history.History(job.task.output), job.plan.pending
    going = {*job.plan.obsolete, *job.retired, *(key for unit in pending for key in unit.replaces)}
    gone = nights.units_gone(name, (job.committed - going) | {unit.key for unit in pending})
    if gone and any(row["night"] > name for row in nights.rows):
        raise UsageError(
            f"--night {name}: {formatting.count(len(gone), 'unit')} of what it audited changed since, and later nights "
            "have gone on from there; its row stays as it is"
        )


def _check_alike(info: dict[str, Any], job: Job, baseline: str) -> None:
    # Which rows there are may differ: what else was scored, and how the images were stored.
    changes = manifest.differences(info, job.options, job.task.fingerprint, job.run["plan"], (MEANING, VALUE))
    if not changes:
        ours, theirs = (manifest.choices(plan) for plan in (job.run["plan"], info["plan"]))
        changes = [
            f"the engine's {name} {theirs.get(name)}, now {ours.get(name)}"
            for name in sorted(ours | theirs)
            if ours.get(name) != theirs.get(name)
        ]
    if changes:
        raise UsageError(
            f"--baseline {storage.mask(baseline)}: scored with another model or other settings: {'; '.join(changes)}; "
            "score both alike"
        )
    if info["status"] != "done":
        raise UsageError(
            f"--baseline {storage.mask(baseline)}: its run is not complete (status {info['status']}); run its command "
            "again, or use --make-baseline"
        )


def audit_night(planned: Planned, score_units: ScoreUnits) -> tuple[RunOutcome, dict[str, Any]]:
    """Score what is new, audit it, write the files, and take the night into the history.

    Args:
        score_units: see :func:`regrad.pipeline.run.execute`.

    Returns:
        What the scoring did, and ``audit.json``.

    Raises:
        UsageError: another run is at work on the output.
        RegradError: the storage, the model or the cluster failed; what was committed stays.
    """
    output = planned.job.task.output
    with _told(output, planned):
        outcome = execute(planned.job, score_units)
        with lease.hold(output, say) as held:
            return outcome, _audit(planned, outcome, held)


def _audit(planned: Planned, outcome: RunOutcome, held: lease.Lease) -> dict[str, Any]:
    job, options = outcome.job, outcome.job.options
    output = job.task.output
    nights = history.History(output)
    ledger = commit.Ledger.read(output)
    units = nights.units_of(planned.checked.night, ledger.keys)
    records = ledger.records(units)
    counted = again.count_new(
        output, planned.baseline.survey.run.output, nights, planned.checked.night, records, job.plan.held_elsewhere
    )
    counts, reasons = counted.totals, counted.reasons
    rows = _rows(output, records, counted)
    earlier = [row["night"] for row in nights.before(planned.checked.night, options.nights)]
    before = [audit for audit in map(nights.details, earlier) if audit]
    place = history.folder(output, planned.checked.night)
    quarantined = counts["rows_quarantined"]
    with Flags(place) as flags:
        numbers_of = night.counted(
            rows, planned.baseline, before, dict(reasons.most_common()), quarantined, options.top, flags.add, place
        )
    known = planned.baseline.survey.run
    drawn = chart.draw_map([known, rows], planned.baseline.threshold, options.map_points) if rows else None
    named = {"night": planned.checked.night, "again": counted.again}
    audit = night.with_verdicts(named | numbers_of, planned.checked.gates)
    too_many = exceeds(quarantined, counts["rows_in"], options.max_quarantined)
    failed = [gate["gate"] for gate in audit["gates"] if gate["verdict"] == gates.EXCEEDED]
    audit |= {
        "status": "done",
        "exit_code": 3 if failed else 4 if too_many else 0,
        "finished": formatting.now(),
        "units": len(units),
        "map": drawn and drawn.numbers,
        "page": storage.join(place, "audit.html"),
        "run": {**job.run, "this_run": outcome.this_run},
    }
    row = _row(audit, job, failed)
    public = storage.published(audit)
    shown = [old for old in nights.rows if old["night"] != planned.checked.night] + [row]
    wanted, seconds = audit["pictures"], options.thumbnail_seconds
    pictures, on_map = (None, {}) if options.no_thumbnails else _pictures(known, rows, wanted, drawn, seconds)
    html = page.render(
        public, storage.published(sorted(shown, key=lambda item: item["night"])), pictures, drawn, on_map
    )
    content = _json(public)
    held.check()
    storage.write_atomically(storage.join(place, "threshold.json"), planned.baseline.threshold.to_json().encode())
    storage.write_atomically(storage.join(place, "audit.html"), html.encode())
    storage.write_atomically(storage.join(place, "audit.json"), content)
    nights.commit(row, units, held.check)
    storage.write_atomically(storage.join(output, "audit.json"), content)
    if options.keep_nights:
        nights.forget(options.keep_nights)
    return public


def _rows(output: str, records: Sequence[dict[str, Any]], counted: again.Counted) -> scored.Run | None:
    """The rows of these units that count; None where there are none."""
    if not counted.totals["rows_scored"]:
        return None
    units = frozenset(record["unit"] for record in records)
    return dataclasses.replace(scored.load_run(night.NIGHT, output), units=units, left_out=counted.left_out)


def _row(audit: dict[str, Any], job: Job, failed: list[str]) -> dict[str, Any]:
    """The night's row of ``history.parquet``."""
    return {
        "night": audit["night"],
        "finished": audit["finished"],
        "model": job.task.fingerprint,
        "baseline": storage.mask(audit["baseline"]["uri"]),
        "score": audit["score"],
        "threshold": audit["threshold"]["value"],
        "units": audit["units"],
        **audit["metrics"],
        "failed_gates": failed,
        "exit_code": audit["exit_code"],
    }


def _pictures(
    known: scored.Run,
    rows: scored.Run | None,
    wanted: list[dict[str, Any]],
    drawn: chart.Chart | None,
    seconds: float,
) -> tuple[list[thumbnails.Thumbnail], dict[str, list[thumbnails.Thumbnail]]]:
    """Those of the ``wanted`` rows of the night, and those of each set of the map."""
    if rows is None:
        return [], {}
    fetch = {run.name: fetcher(run.info) for run in (known, rows)}
    parts = [{night.NIGHT: wanted}, drawn.wanted if drawn else {}]
    listed, on_map = thumbnails.collect_all(parts, fetch, seconds)
    return listed[night.NIGHT], on_map


@contextlib.contextmanager
def _told(output: str, planned: Planned) -> Iterator[None]:
    """A failure is told in ``OUT/audit.json`` too, since not everybody passes exit codes on."""
    try:
        yield
    except (UsageError, lease.LeaseLost):
        raise  # the output is another's
    except (RegradError, KeyboardInterrupt) as error:
        code = getattr(error, "exit_code", 130)
        told = {
            "audit_version": night.AUDIT_VERSION,
            "night": planned.checked.night,
            "status": "failed",
            "exit_code": code,
            "finished": formatting.now(),
            "error": storage.mask(str(error)),
        }
        with contextlib.suppress(RegradError):
            storage.write_atomically(storage.join(output, "audit.json"), _json(told))
        raise


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False).encode()


def tell(planned: Planned, audit: dict[str, Any]) -> str | None:
    """Post the outcome to the webhook, if there is one; what to say where that failed."""
    if planned.checked.webhook is None:
        return None
    started = time.monotonic()
    payload = notify.PAYLOADS[planned.checked.notify_as](notify.news_of(audit, audit["page"]))
    problem = notify.post(planned.checked.webhook, payload)
    where = notify.host(planned.checked.webhook)
    return problem and f"warning: --notify {where}: {problem} ({time.monotonic() - started:.0f} s); the audit stands"
