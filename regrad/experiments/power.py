"""How often drift of embeddings is found, where there is one and where there is none: two runs, drawn from many times.

    python -m regrad.experiments.power KNOWN --sizes 200 1000
    python -m regrad.experiments.power KNOWN SHIFTED --sizes 200 1000 --share 0.05
    python -m regrad.experiments.power KNOWN --without 3

KNOWN and SHIFTED are outputs of regrad score --embeddings with one network and a common score. Each time a baseline and
a night of so many images are drawn from KNOWN, no image twice, and a share of the night's are replaced by images of
SHIFTED, of other ids than the baseline's. Without SHIFTED, and without a class left out of the night, what is found is
false alarms.

Exit codes: 0 done, 2 wrong usage, 130 and 143 stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.stats

from regrad.audit import drift
from regrad.audit.seen import compare_embeddings
from regrad.cli import Parser, add_common, run_command
from regrad.errors import UsageError
from regrad.formatting import aligned
from regrad.runs.embeddings import EmbeddingSample, Vectors, embedding_rows
from regrad.runs.scored import Floats, Ints, Run, common_scores, floats, integers, load_run
from regrad.settings.kinds import AT_LEAST_1, BETWEEN

LEVELS = (0.05, 0.01)
#: What is asked of each draw: its p-value, for all classes the smallest that is corrected for them.
TESTS = ("classifier", "MMD", "classes: images", "classes: shares", "score, KS", "predicted classes")


@dataclass(frozen=True)
class Drawable:
    """The images of a run: (n,) ids, predictions, labels and scores, and (n, d) embeddings, in the order of the ids."""

    ids: npt.NDArray[np.str_]
    vectors: Vectors
    predictions: Ints
    labels: Ints
    scores: Floats

    def take(self, rows: Ints) -> Drawable:
        """Those of these places."""
        return Drawable(*(values[rows] for values in vars(self).values()))


def tell_power(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments; returns its exit code."""
    return run_command(argv, measure_power)


def power_arguments() -> Parser:
    """The command's arguments."""
    made = Parser("", __doc__, "KNOWN [SHIFTED] [options]")
    made.prog = "python -m regrad.experiments.power"
    made.usage = f"{made.prog} KNOWN [SHIFTED] [options]"
    what, how = made.groups("how often, and how finely")
    what.add_argument("known", metavar="KNOWN", help="a run with embeddings")
    what.add_argument("shifted", metavar="SHIFTED", nargs="?", help="another of the same network; KNOWN unless told")
    what.add_argument("--sizes", type=AT_LEAST_1, nargs="+", default=[200, 1000], help="images of either side")
    what.add_argument("--share", type=BETWEEN, help="of the night's images that are of SHIFTED; all unless told")
    what.add_argument("--without", type=int, metavar="CLASS", help="label that no image of the night has")
    how.add_argument("--repetitions", type=AT_LEAST_1, default=100, help="draws of each size")
    how.add_argument("--permutations", type=AT_LEAST_1, default=199, help="of each test")
    add_common(how)
    return made


def measure_power(arguments: Sequence[str]) -> int:
    """Print how often each test's p is at most each level."""
    args = power_arguments().parse_args(arguments)
    runs = [load_run(name, output) for name, output in (("KNOWN", args.known), ("SHIFTED", args.shifted)) if output]
    score = common_scores(runs[0], runs[1:])[1]
    known, *others = [hold_embeddings(run, score) for run in runs]
    shifted = others[0] if others else None
    rows = [["images", *(f"{test}, {level:g}" for test in TESTS for level in LEVELS)]]
    for size in args.sizes:
        draws = _draws(known, shifted, size, args)
        ps = np.array([tests_of(*draw, args.permutations, seed)[:-1] for seed, draw in enumerate(draws)])
        shares = [(column <= level).mean() for column in ps.T for level in LEVELS]
        rows.append([str(size), *(f"{share:.2f}" for share in shares)])
    print("\n".join(aligned([list(column) for column in zip(*rows, strict=True)])))
    return 0


def hold_embeddings(run: Run, score: str) -> Drawable:
    """The images of a run with one of its scores, all in memory.

    Raises:
        UsageError: it has no embeddings.
    """
    seen = list(embedding_rows(run))
    ids = np.concatenate([some.known_by["id"].to_numpy() for some in seen]).astype(np.str_)
    vectors = np.concatenate([some.vectors for some in seen])[np.argsort(ids, kind="stable")]
    tables = list(run.tables(["id", "prediction", "label", score]))
    names = np.concatenate([rows["id"].to_numpy() for rows in tables]).astype(np.str_)
    order = np.argsort(names, kind="stable")
    predictions, labels = (np.concatenate([integers(rows[key]) for rows in tables]) for key in ("prediction", "label"))
    scores = np.concatenate([floats(rows[score]) for rows in tables])
    return Drawable(names[order], vectors, predictions[order], labels[order], scores[order])


def draw_night(
    known: Drawable,
    shifted: Drawable | None,
    size: int,
    share: float,
    without: int | None,
    rng: np.random.Generator,
    left: float = 0.0,
) -> tuple[Drawable, Drawable]:
    """A baseline and a night of ``size`` images each; no id is in both, and none twice on a side.

    Args:
        left: the share of the images of class ``without`` that the night may have all the same.

    Raises:
        UsageError: there are not that many.
    """
    order = rng.permutation(len(known.ids))
    baseline, rest = known.take(order[:size]), known.take(order[size:])
    if without is not None:
        rest = rest.take(np.flatnonzero((rest.labels != without) | (rng.random(len(rest.ids)) < left)))
    if shifted is None:
        return _enough(baseline, size), _enough(rest, size)
    others = shifted.take(rng.permutation(np.flatnonzero(~np.isin(shifted.ids, baseline.ids))))
    new = _enough(others, round(share * size))
    same = _enough(rest.take(np.flatnonzero(~np.isin(rest.ids, new.ids))), size - len(new.ids))
    return _enough(baseline, size), _joined(same, new)


def tests_of(known: Drawable, new: Drawable, permutations: int, seed: int) -> list[float]:
    """The p-value of each of :data:`TESTS`, and last the AUROC of the classifier."""
    classes = 1 + int(max(known.predictions.max(), new.predictions.max()))
    counts = [np.bincount(held.predictions, minlength=classes) for held in (known, new)]
    samples = [EmbeddingSample(held.vectors, held.predictions, len(held.ids)) for held in (known, new)]
    told = compare_embeddings(samples[0], samples[1], counts[0], counts[1], permutations, seed)
    smallest = [_smallest(told["classes"], key) for key in ("p_adjusted", "share_p_adjusted")]
    score = scipy.stats.ks_2samp(known.scores, new.scores, method="asymp").pvalue
    shares = drift.same_shares_p(counts[1], counts[0])
    return [told["auroc_p"], told["mmd_p"], *smallest, float(score), shares, told["auroc"]]


def _draws(known: Drawable, shifted: Drawable | None, size: int, args: Any) -> Iterator[tuple[Drawable, Drawable]]:
    for repetition in range(args.repetitions):
        rng = np.random.default_rng([size, repetition])
        yield draw_night(known, shifted, size, 1.0 if args.share is None else args.share, args.without, rng)


def _smallest(classes: Sequence[dict[str, Any]], key: str) -> float:
    return min((entry[key] for entry in classes if entry[key] is not None), default=1.0)


def _enough(held: Drawable, size: int) -> Drawable:
    if len(held.ids) < size:
        raise UsageError(f"{size} images are to be drawn, and there are {len(held.ids)} left; ask for fewer (--sizes)")
    return held.take(np.arange(size))


def _joined(first: Drawable, second: Drawable) -> Drawable:
    return Drawable(*(np.concatenate(pair) for pair in zip(vars(first).values(), vars(second).values(), strict=True)))


if __name__ == "__main__":
    raise SystemExit(tell_power())
