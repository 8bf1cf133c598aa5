"""Everything before the first image is scored, without changing the output: check, load, list, plan."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

from regrad import __version__, storage, table
from regrad.classifier import Classifier
from regrad.errors import UsageError
from regrad.formatting import Laps, duration
from regrad.ledger import commit
from regrad.pipeline import fitting, manifest
from regrad.pipeline.options import Options
from regrad.pipeline.plan import Plan, Unit, make_plan, of_sources
from regrad.pipeline.process import cores
from regrad.pipeline.worker import Task, UnitScorer
from regrad.reading.formats import Source, open_reader
from regrad.reading.inputs import Listing, absolute, list_inputs
from regrad.reading.looked import Looked
from regrad.reading.naming import leftovers
from regrad.reading.naming.classes import Classes
from regrad.reading.samples import DEFAULT_COLUMNS, Columns
from regrad.scorer import Scorer
from regrad.scores import in_order, load_module
from regrad.scores.state import fingerprint

_COUNTED = 8  # up to so many sources that do not say their length are counted whole, of more a sample
_SAMPLED, _SAMPLED_ROWS = 3, 64
_TRIAL_IMAGES = 16


@dataclass
class Job:
    """A run that is ready to start.

    Attributes:
        listing: what the inputs hold.
        run: what ``run.json`` will say when it starts.
        committed: the keys of the units in the output now.
        retired: all of them, where ``--replace`` makes room for another configuration.
        elsewhere: what another output holds, and this one need not.
        make_scorer: builds what scores, once: where an output holds all there is, nobody needs it.
    """

    options: Options
    task: Task
    listing: Listing
    plan: Plan
    run: dict[str, Any]
    committed: set[str]
    retired: set[str]
    counts: dict[str, Any]
    classifier: Classifier
    make_scorer: Callable[[], Scorer]
    elsewhere: commit.Ledger | None = None

    @property
    def scorer(self) -> Scorer:
        """What scores in this process."""
        return self.make_scorer()


def prepare(options: Options, elsewhere: commit.Ledger | None = None, laps: Laps | None = None) -> Job:
    """Check the options against inputs and output, load the model, and plan.

    Args:
        elsewhere: what another output holds; it is not scored.
        laps: told how long it took to list, to load the model, to choose the engine, and to plan.

    Raises:
        UsageError: a setting, the model or an input is wrong, or the output holds another configuration.
        RegradError: the storage refused or failed.
    """
    laps = laps or Laps(0.0)
    output = absolute(options.output)
    columns = Columns(options.image_column, options.label_column, options.id_column)
    listing = list_inputs(options.inputs, columns, output, Looked(output, __version__))
    held = manifest.existing(output)
    laps.end("inputs")
    model = model_arguments(options)
    classifier = Classifier.load(**model)
    laps.end("model")
    columns = replace(columns, classes=Classes.of(classifier.num_classes, classifier.class_names))
    listing = listing.labelled(columns.classes)
    settings = scorer_arguments(options)
    differences = _differences(held, options, classifier)
    fitted = fitting.fitted(options, classifier, output)
    if fitted and not differences:
        differences = _differences(held, options, classifier, {name: fingerprint(s)[:16] for name, s in fitted.items()})
    stored = held["plan"] if held and not differences else None
    settings |= {"memory_budget": options.memory_budget, **fitted}
    make_scorer = cache(partial(Scorer, classifier, **settings, plan=stored))
    resolved = stored or make_scorer().plan
    laps.end("engine")
    ledger = commit.Ledger.read(output)
    committed = set(ledger.keys)
    retired = committed if differences else set()
    salt = manifest.salt(classifier.fingerprint, manifest.configuration(options), resolved)
    again = of_sources(listing.unidentified, committed - retired) if options.rescan else set()
    ledger = ledger.only(committed - retired - again)
    plan = make_plan(listing.sources, options.unit_rows, salt, ledger, options.limit, elsewhere)
    plan = replace(plan, obsolete=(*plan.obsolete, *sorted(again)))
    if not elsewhere:
        _refuse_empty(listing.sources, plan)
    width = held["model"].get("embedding_width") if held and stored else make_scorer().embedding_width
    named = {
        "spec": options.model,
        "fingerprint": classifier.fingerprint,
        "network": classifier.network_fingerprint,
        "temperature": classifier.temperature,
        "classes": classifier.num_classes,
        **({"embedding_width": width} if width else {}),
        "class_names": list(classifier.class_names) if classifier.class_names else None,
        "notes": list(classifier.notes),
    }
    run = manifest.start(options, named, resolved)
    if elsewhere:
        run["elsewhere"] = storage.mask(elsewhere.output)
    if stored and held and "measured" in held:
        run["measured"] = held["measured"]
    provenance = {
        "schema_version": table.ROWS_VERSION,
        "regrad_version": __version__,
        "model": {name: named[name] for name in ("spec", "fingerprint")},
        "config": run["config"],
        "plan": run["plan"],
        "versions": run["versions"],
    }
    task = Task(
        output=output,
        model=model,
        scorer={**settings, "plan": resolved},
        fingerprint=classifier.fingerprint,
        provenance=provenance,
        score_modules=tuple(options.score_module),
        columns=columns,
        max_pixels=options.max_pixels,
        batch_size=options.batch_size,
        threads=cores(),
        unit_rows=options.unit_rows,
    )
    counts = manifest.held_totals(ledger.only(committed - retired), held)
    laps.end("plan")
    if plan.pending:
        make_scorer()  # what it refuses is told before any worker starts
        laps.end("engine")
    return Job(options, task, listing, plan, run, committed, retired, counts, classifier, make_scorer, elsewhere)


def plan_again(job: Job, committed: set[str]) -> Job:
    """``job``, planned for its inputs as they are now, on an output that holds the units ``committed``."""
    output, options = job.task.output, job.options
    listing = list_inputs(options.inputs, job.task.columns, output, job.listing.looked)
    salt = manifest.salt(job.task.fingerprint, manifest.configuration(options), job.run["plan"])
    ledger = commit.Ledger(output, committed)
    plan = make_plan(listing.sources, options.unit_rows, salt, ledger, options.limit, job.elsewhere)
    return replace(job, listing=listing, plan=plan)


def _differences(
    held: dict[str, Any] | None, options: Options, classifier: Classifier, plan: dict[str, str] | None = None
) -> list[str]:
    """How the output's configuration differs; refused unless it is to be replaced."""
    differences: list[str] = []
    if held:
        differences = manifest.differences(held, options, classifier.fingerprint, plan)
        differences += manifest.renamed_classes(held, classifier.class_names)
    if differences and not options.replace:
        raise UsageError(
            f"{storage.mask(options.output)}: holds scores of another configuration: {'; '.join(differences)}; use "
            "another --output, or --replace to score it anew"
        )
    return differences


def model_arguments(options: Options) -> dict[str, Any]:
    """The arguments of ``Classifier.load``; local files are named so that every worker finds them."""
    given = options.of("model")
    files = {key: absolute(given[key]) for key in ("weights", "temperature") if isinstance(given[key], str)}
    return {"spec": given.pop("model"), **given, **files}


def scorer_arguments(options: Options) -> dict[str, Any]:
    """The arguments of ``Scorer``; scores come in the order of the registry, so that their order means nothing."""
    given = options.of("scorer")
    for module in options.score_module:
        load_module(module)
    return {**given, "scores": in_order(given["scores"])}


def _refuse_empty(sources: Sequence[Source], plan: Plan) -> None:
    """A mistake in the inputs is told now; where only reading tells, the first source with an image settles it."""
    if plan.done or any(unit.rows is not None for unit in plan.pending):
        return
    by_name = {source.uri: source for source in sources}
    left_out: Counter[str] = Counter()
    for unit in plan.pending:
        reader = by_name[unit.source].open()
        if not reader.is_empty():
            return
        left_out += reader.skipped
    named = ", ".join(storage.mask(source.uri) for source in sources[:3])
    raise UsageError(f"{named}: no image in the input{leftovers.instead(left_out)}")


def expected_images(
    units: Sequence[Unit], columns: Columns = DEFAULT_COLUMNS, thorough: bool = False
) -> tuple[int, bool]:
    """How many images ``units`` hold, and whether that is exact.

    Sources that do not say their length, such as tars, are taken from their sizes and the first samples of a few of
    each format; ``thorough`` counts up to eight of them.
    """
    known = sum(unit.rows or 0 for unit in units)
    unknown = [unit for unit in units if unit.rows is None]
    if not unknown:
        return known, True
    if thorough and len(unknown) <= _COUNTED:
        counts = (open_reader(unit.source, unit.kind, columns).count(unit.stop)[0] for unit in unknown)
        return known + sum(max(0, count - unit.start) for count, unit in zip(counts, unknown, strict=True)), True
    by_kind: dict[str, list[Unit]] = defaultdict(list)
    for unit in unknown:
        by_kind[unit.kind].append(unit)
    return known + sum(_estimated(same, columns) for same in by_kind.values()), False


def _estimated(units: Sequence[Unit], columns: Columns) -> int:
    """About how many images these units of one format hold."""
    sample = units[:: max(1, len(units) // _SAMPLED)][:_SAMPLED]
    counts = [open_reader(unit.source, unit.kind, columns).count(_SAMPLED_ROWS) for unit in sample]
    rows = sum(count for count, _ in counts)
    if not rows:
        return 0
    mean = sum(count * size for count, size in counts) / rows or 1.0
    return round(sum(min(unit.size / mean, unit.stop or float("inf")) for unit in units))


def describe(job: Job) -> str:
    """The plan in words, with an estimate of the time from one small real batch."""
    pending = job.plan.pending
    images, exact = expected_images(pending, job.task.columns, thorough=True)
    lines = [
        f"model      {job.run['model']['spec']}, {job.classifier.num_classes} classes, images of "
        f"{job.classifier.channels} x {' x '.join(map(str, job.classifier.image_size))}, "
        f"fingerprint {job.task.fingerprint[:12]}",
        *(f"assumed    {note}" for note in job.classifier.notes),
        *(f"labels     {note}" for note in job.listing.notes),
        *(f"warning    {warning}" for warning in job.listing.warnings),
        f"scores     {', '.join(job.scorer.names)}",
        f"engine     {job.run['plan']['engine']}: {job.run['plan'].get('why', '')}",
        f"output     {storage.mask(job.task.output)}",
        f"units      {len(pending)} to score, {len(job.plan.done)} done, "
        f"{len(job.plan.obsolete) + len(job.retired)} to retire",
        f"images     {'' if exact else 'about '}{images} to score",
    ]
    if whole := job.listing.whole:
        lines.append(f"one unit   {leftovers.in_words(whole)}")
    if skipped := job.listing.skipped + job.counts["skipped"]:
        lines.append(f"left out   {leftovers.in_words(skipped)}")
    if pending:
        scorer = UnitScorer(job.task, classifier=job.classifier, scorer=job.scorer)
        count, seconds = scorer.trial(pending[0], min(_TRIAL_IMAGES, job.options.batch_size))
        if count:
            speed = count / seconds
            lines.append(
                f"estimate   about {duration(images / speed)} for one worker on this machine "
                f"({speed:.3g} images/s on a batch of {count})"
            )
    return "\n".join(lines)
