"""The tables: rows that are measured, numbers of the paper that find their place, and notes that say how."""

from __future__ import annotations

import pytest

from regrad.experiments.material.experiments import ARCHITECTURE, IMAGENET, SEPARATION
from regrad.experiments.measured.results import paper
from regrad.experiments.measured.scoring import Study
from regrad.experiments.reproduce.quick import QUICK
from regrad.experiments.reproduce.tables import PAIRS, TABLES


@pytest.mark.parametrize("name", TABLES)
def test_every_row_stands_once(name: str) -> None:
    table = TABLES[name]
    rows = [*table.rows, *table.more]
    assert len(set(rows)) == len(rows)
    assert table.metrics
    assert table.title[0].isupper()


def test_every_number_of_the_paper_has_a_place() -> None:
    lost = [
        key
        for key in paper()
        if key[0] not in TABLES
        or key[3] not in TABLES[key[0]].metrics
        or key[2] not in {*TABLES[key[0]].rows, *TABLES[key[0]].more}
    ]
    assert lost == []
    experiments = {each.name for each in (*SEPARATION, *ARCHITECTURE)}
    assert {key[1] for key in paper() if key[0] == "ood"} <= experiments


def test_a_mean_over_pairs_counts_each_once() -> None:
    places = [(pair.model, pair.known, pair.unknown) for pair in PAIRS]
    assert len(set(places)) == len(places)
    assert {pair.model for pair in PAIRS} >= {each.model for each in (*SEPARATION, *ARCHITECTURE, *IMAGENET)}


def test_there_is_a_quick_form_of_every_table() -> None:
    assert QUICK.keys() == TABLES.keys()


@pytest.mark.parametrize("name", [name for name in TABLES if not name.startswith("active") and name != "runtime"])
def test_without_images_a_table_says_for_every_row_that_nothing_was_measured(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    empty = tmp_path_factory.mktemp("empty")
    results = TABLES[name].compute(Study(str(empty), str(empty / "out"), compute=False))
    assert results
    assert {result.mean for result in results} == {None}
    assert {result.table for result in results} == {name}
    assert {result.row for result in results} <= {*TABLES[name].rows, *TABLES[name].more}
    assert {result.metric for result in results} <= TABLES[name].metrics.keys()


def test_the_notes_of_active_learning_say_how_each_task_is_done() -> None:
    note = TABLES["active-learning"].note
    assert "MNIST: 20 labels, 20 more in each of 10 cycles, of 5000 candidates" in note
    assert "SVHN: 500 labels, 200 more in each of 3 cycles, of 1000 candidates" in note
    assert "from 4 times" in note or "times as many" in note
