"""The loop: which rows it asks for, what it never does twice, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from regrad import UsageError
from regrad.active_learning import Cycle, Rows, active_learning, at_random

SIZES = {"images": 100, "initial": 5, "per_cycle": 10, "cycles": 4}


def run(score: object = None, **changes: int) -> list[Cycle]:
    loop = active_learning(
        lambda rows: set(rows.tolist()),
        score or (lambda model, rows: rows),  # type: ignore[arg-type]
        lambda model: {"size": float(len(model))},
        **{**SIZES, **changes},  # type: ignore[arg-type]
    )
    return list(loop)


def test_the_most_uncertain_rows_are_labelled_next() -> None:
    cycles = run()
    assert [cycle.number for cycle in cycles] == [0, 1, 2, 3, 4]
    first = set(cycles[0].labelled.tolist())
    wanted = [row for row in range(99, -1, -1) if row not in first][:40]
    assert cycles[-1].labelled[5:].tolist() == wanted
    assert [cycle.metrics["size"] for cycle in cycles] == [5, 15, 25, 35, 45]


def test_no_row_is_asked_for_again_and_a_model_scores_only_rows_without_a_label() -> None:
    seen: list[tuple[set[int], Rows]] = []

    def score(model: set[int], rows: Rows) -> Rows:
        seen.append((model, rows))
        return -rows

    cycles = run(score, candidates=20)
    assert len(set(cycles[-1].labelled.tolist())) == 45
    for model, rows in seen:
        assert len(rows) == 20
        assert not model & set(rows.tolist())


def test_a_seed_gives_the_same_loop_and_two_scores_begin_alike() -> None:
    first, again, other = run(at_random, seed=1), run(at_random, seed=1), run(seed=1)
    assert [c.labelled.tolist() for c in first] == [c.labelled.tolist() for c in again]
    assert first[0].labelled.tolist() == other[0].labelled.tolist()
    assert run(at_random, seed=2)[-1].labelled.tolist() != first[-1].labelled.tolist()


def test_the_random_baseline_is_spread_evenly() -> None:
    chosen = np.concatenate([run(at_random, seed=seed)[-1].labelled for seed in range(60)])
    counts = np.bincount(chosen, minlength=100)  # 60 draws of 45 in 100: 27 of each, with a deviation of 3.9
    assert counts.min() > 10
    assert counts.max() < 44


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": 44}, "images 44: 5 \\+ 4 x 10 are to be labelled"),
        ({"candidates": 9}, "candidates 9: fewer than are labelled in a cycle"),
        ({"initial": 0}, "initial 0: must be 1 or larger"),
        ({"per_cycle": 0}, "per cycle 0: must be 1 or larger"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(**changes)


def test_a_score_that_cannot_be_ranked_is_refused() -> None:
    with pytest.raises(UsageError, match=r"score gave values of shape \(3,\) for 95 rows"):
        run(lambda model, rows: [1, 2, 3])
    with pytest.raises(UsageError, match="score gave 95 NaN for 95 rows"):
        run(lambda model, rows: np.full(len(rows), np.nan))
