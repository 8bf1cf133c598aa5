"""The nightly audit: score what is new, hold it against a baseline and the nights before, and say whether it passes.

    regrad audit s3://bucket/known --model SPEC --baseline s3://bucket/baseline --output s3://bucket/audit \\
        --make-baseline
    regrad audit s3://bucket/incoming --model SPEC --baseline s3://bucket/baseline --output s3://bucket/audit \\
        --gate 'flagged_share < 0.10' --gate 'psi < 0.2' --gate 'quarantined < 0.001'

Every flag of regrad score is one of this job too: it scores into OUT, and what it has scored once is not new again.

    OUT/scores/, quarantine/, ledger/, run.json   as of regrad score: all nights
    OUT/nights/NIGHT/audit.html, audit.json       the page, and its numbers (docs/nightly.md)
    OUT/audit.json                                the numbers of the last night
    OUT/nights/NIGHT/flags/*.parquet              the images of the night above the threshold
    OUT/nights/NIGHT/doubtful.csv                 and .parquet: labels that the network contradicts (docs/labels.md)
    OUT/history.parquet                           one row per night

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 a gate was exceeded, 4 more rows of the night in
quarantine than --max-quarantined allows, 130 and 143 stopped.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from regrad.audit.options import FIRST, OPTIONS, check_options
from regrad.cli import Parser, loading, run_command
from regrad.cluster import score_where_it_pays
from regrad.pipeline import options

if TYPE_CHECKING:
    from regrad.pipeline.run import RunOutcome


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments; returns its exit code."""
    return run_command(argv, audit)


def audit(arguments: Sequence[str]) -> int:
    """Make the baseline if there is none and it is wanted; else score, compare, write, tell."""
    settings = options.parse(arguments, "audit", __doc__, OPTIONS, FIRST)
    checked = None if settings.list_scores else check_options(settings, os.environ)

    with loading():
        from regrad.audit import run as audits
        from regrad.pipeline import process
        from regrad.pipeline.prepare import describe
        from regrad.pipeline.run import execute
        from regrad.scores import listing

    if checked is None:
        print(listing(settings.score_module))
        return 0
    if audits.needs_baseline(settings):
        job = audits.make_baseline(settings)
        if settings.dry_run:
            process.set_up(job.task.threads)  # of the estimate's batch
            print(describe(job))
            return 0
        outcome = execute(job, score_where_it_pays)
        print(f"{counted(outcome)}: the baseline; the next run of this command audits what has come in since")
        return outcome.exit_code
    planned = audits.plan(settings, checked)
    if settings.dry_run:
        process.set_up(planned.job.task.threads)
        print(planned.describe())
        return 0
    outcome, audited = audits.audit_night(planned, score_where_it_pays)
    notes = [f"warning: {note}" for note in outcome.notes]
    print("\n".join([counted(outcome), *notes, *audited["headline"], audited["page"]]))
    if warning := audits.tell(planned, audited):
        print(warning, file=sys.stderr)
    failed = [gate["gate"] for gate in audited["gates"] if gate["verdict"] == "exceeded"]
    if failed:
        print(f"exit code 3: exceeded {'; '.join(failed)}", file=sys.stderr)
    return int(audited["exit_code"])


def parser() -> Parser:
    """Its flags."""
    return options.parser_of("audit", __doc__, OPTIONS, FIRST)


def counted(outcome: RunOutcome) -> str:
    """What the scoring did."""
    done = outcome.this_run
    return (
        f"scored {done['rows_scored']} images ({done['images_per_second']:.3g} images/s), "
        f"{done['rows_quarantined']} quarantined"
    )
