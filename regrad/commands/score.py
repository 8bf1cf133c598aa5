"""Score every image of a dataset by how little a pre-trained classifier understands it.

    regrad score s3://bucket/shards --model torchvision:resnet50@IMAGENET1K_V2 --output s3://bucket/scores
    regrad score images/ --model my_package.my_module:build --weights weights.safetensors --output scores

INPUT is any number of WebDataset tars, Parquet files, folders of these or of images, globs, and ranges like
train-{000..099}.tar. Run the same command again to go on where it stopped; what is done is not done again.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 4 done but more rows in quarantine than
--max-quarantined allows, 130 and 143 stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import psutil

from regrad import storage
from regrad.cli import Parser, loading, run_command, say
from regrad.cluster import score_where_it_pays
from regrad.formatting import Laps, duration
from regrad.pipeline import options
from regrad.reading.naming import leftovers

if TYPE_CHECKING:
    from regrad.pipeline.results import UnitResult
    from regrad.pipeline.run import RunOutcome


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments; returns its exit code."""
    return run_command(argv, score)


def score(arguments: Sequence[str]) -> int:
    """Plan, score and commit, and say what came of it."""
    laps = Laps(psutil.Process().create_time())
    settings = options.parse(arguments, "score", __doc__)

    with loading():
        from regrad.pipeline import process
        from regrad.pipeline.prepare import describe, prepare
        from regrad.pipeline.run import execute
        from regrad.scores import listing

    if settings.list_scores:
        print(listing(settings.score_module))
        return 0
    laps.end("start")
    job = prepare(settings, laps=laps)
    if settings.dry_run:
        process.set_up(job.task.threads)  # of the estimate's batch
        print(describe(job))
        return 0
    outcome = execute(job, lambda job: _until_the_first(score_where_it_pays(job), laps))
    if settings.verbose:
        say(f"until the first unit: {laps}")
        if spent := outcome.this_run["worker_seconds"]:
            say(f"workers: {_shares(spent)}")
    print(summary(outcome))
    return outcome.exit_code


def _until_the_first(results: Iterator[UnitResult], laps: Laps) -> Iterator[UnitResult]:
    """``results``; the first, if there is one, ends a lap."""
    for number, result in enumerate(results):
        if number == 0:
            laps.end("first unit")
        yield result


def _shares(seconds: Mapping[str, float]) -> str:
    """What the workers' time went into, in percent.

    >>> _shares({"reading": 1.0, "scoring": 3.0})
    'scoring 75 %, reading 25 %'
    """
    total = sum(seconds.values())
    ordered = sorted(seconds.items(), key=lambda item: -item[1])
    return ", ".join(f"{step} {spent / total:.0%}".replace("%", " %") for step, spent in ordered if spent)


def parser() -> Parser:
    """Its flags."""
    return options.parser_of("score", __doc__)


def summary(outcome: RunOutcome) -> str:
    """What the run did and what the output holds now."""
    job, done, held = outcome.job, outcome.this_run, outcome.counts
    output = storage.mask(job.task.output)
    speed = f"{duration(done['seconds'])}, {done['images_per_second']:.3g} images/s"
    lines = [
        f"scored {done['rows_scored']} images ({speed}), {done['rows_quarantined']} quarantined; "
        f"{len(job.plan.done)} units were done before",
        f"{output} holds {held['rows_scored']} scores and {held['rows_quarantined']} quarantined rows",
    ]
    if skipped := outcome.skipped:
        lines.append(f"left out {leftovers.in_words(skipped)}")
    if held["accuracy"] is not None:
        lines.append(f"accuracy {held['accuracy']:.2%} of {held['labelled']} labelled images")
    lines += job.listing.notes
    lines += [f"warning: {note}" for note in outcome.notes]
    measured, tolerance = outcome.measured or {"max_relative_error": 0.0}, job.options.tolerance
    if measured["max_relative_error"] > tolerance > 0 and job.run["plan"]["engine"] == "exact":
        lines.append(
            f"warning: on {measured['images']} images the gradients are off by up to "
            f"{measured['max_relative_error']:.1e}, more than --tolerance {tolerance:g} allows; lower it"
        )
    if held["labels_outside"]:
        lines.append(
            f"warning: {held['labels_outside']} labels are outside the model's {job.classifier.num_classes} classes; "
            "numbers are kept, and none counts in the accuracy"
        )
    if outcome.exit_code == 4:
        lines.append(
            f"quarantined rows exceed --max-quarantined {job.options.max_quarantined}: see {output}/quarantine for "
            "each one's stage and reason"
        )
    return "\n".join(lines)
