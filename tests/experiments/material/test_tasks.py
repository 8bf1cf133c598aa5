"""What active learning is measured on: tasks that fit their pools, and settings that tell their runs apart."""

from __future__ import annotations

import json

import pytest
import torch

from regrad import Classifier
from regrad.experiments.material import tasks
from regrad.experiments.material.packs import SPLITS, Split
from regrad.experiments.material.tasks import QUICK_TASKS, TASKS, LabellingTask
from regrad.experiments.measured import labelling

ALL = [task for group in (TASKS, QUICK_TASKS) for several in group.values() for task in several]


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)
def test_there_are_enough_images_for_every_cycle(task: LabellingTask) -> None:
    labelled = task.initial + task.cycles * task.per_cycle
    assert labelled <= task.pool
    assert task.per_cycle <= task.candidates <= task.pool
    assert set(task.rows or ()) <= labelling.ROWS.keys()
    network = Classifier.load(task.spec)
    assert network.num_classes == (100 if "cifar100" in task.name else 10)


def test_the_runs_of_two_tasks_never_share_a_folder() -> None:
    assert len({task.name for task in ALL}) == len(ALL)
    assert len({task.title for task in ALL}) == len(ALL)


def test_settings_are_what_numbers_depend_on() -> None:
    first, *_ = TASKS["active-learning"]
    assert {"name", "title", "rows"} & first.settings.keys() == set()
    settings = [json.dumps(task.settings, sort_keys=True) for task in ALL if "twice" not in task.name]
    assert len(set(settings)) == len(settings)


def test_the_protocol_says_how_it_is_done() -> None:
    quick = QUICK_TASKS["active-learning"][0]
    assert quick.protocol == (
        "SVHN, quick: 20 labels, 10 more in each of 2 cycles, of 150 candidates, N = 0, 40 steps with 16 images"
    )
    assert (
        "of all that are left"
        in LabellingTask(**{**TASKS["active-learning"][0].__dict__, "candidates": 20_000}).protocol
    )


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)
def test_what_is_learned_from_is_not_tested_on(task: LabellingTask) -> None:
    parts = [SPLITS.get(name, Split(name)) for name in (task.train, task.test)]
    pool, test = (range(part.start, part.stop or 10**6) for part in parts)
    assert parts[0].pack != parts[1].pack or not set(pool) & set(test)
    assert task.test_images <= len(test)


def test_softmax_twice_hands_over_probabilities() -> None:
    network, known = tasks.softmax_twice()
    images = torch.rand(3, known.get("channels", 1), 28, 28)
    probabilities = network.eval()(images)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(3))
    assert (probabilities >= 0).all()
