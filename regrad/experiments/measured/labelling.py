"""Table 3: active learning, where each method asks for the labels it finds the network to need most."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regrad import Classifier, Scorer, storage
from regrad.active_learning import Cycle, Rows, active_learning, at_random
from regrad.errors import UsageError
from regrad.experiments.material import methods
from regrad.experiments.material.packs import Packs
from regrad.experiments.material.tasks import LabellingTask
from regrad.experiments.measured.results import Result, beside_paper, mean_and_deviation
from regrad.experiments.measured.scoring import Study, say
from regrad.models.training import train_network
from regrad.reading.memory import load_labelled
from regrad.scores.draws import posterior
from regrad.select import POOL
from regrad.select.choose import k_center
from regrad.select.features import features

RANDOM = "Random"
#: As regrad select --diversity k-center chooses: of the most uncertain, those that lie far from each other.
DIVERSE = {"REGrad*, k-center": "regrad-k-center", "Entropy, k-center": "entropy-k-center"}
ROWS = {**methods.PAPER, RANDOM: "random", **DIVERSE}
FIRST = ("REGrad*", RANDOM, "Entropy", "ExGrad", *DIVERSE)  # of every seed, then the others
BATCH = 64  # images that are scored at once, as by regrad score
COPIES = {"perturb_x": 10}  # of what is nothing without noise, where a task has none
TASK = "task.json"  # how the runs beside it were made
_POINT = "ACC at "  # and so many labels: the metric of a point of a curve


def labelling(study: Study, table: str, tasks: Sequence[LabellingTask]) -> list[Result]:
    """Mean accuracy and NLL over the cycles after an acquisition, per task, method and seed."""
    return [result for task in tasks for result in _results(study, table, task)]


def curve(results: Iterable[Result], title: str, row: str) -> tuple[list[int], list[float]]:
    """Numbers of labels, ascending, and the accuracy at each in percent, mean over seeds; empty where none is known."""
    points = {
        int(result.metric.removeprefix(_POINT)): result.mean
        for result in results
        if (result.experiment, result.row) == (title, row) and result.metric.startswith(_POINT)
    }
    kept = {labels: mean for labels, mean in sorted(points.items()) if mean is not None}
    return list(kept), list(kept.values())


def curves(study: Study, task: LabellingTask, row: str) -> list[list[dict[str, Any]]]:
    """The cycles of each finished seed of a method."""
    folder = _folder(study, task)
    runs = []
    for seed in range(study.seeds):
        file = f"{ROWS[row]}-seed{seed}.json"
        if file in storage.list_files(folder, ".json"):
            runs.append(json.loads(storage.read_bytes(storage.join(folder, file))))
    return runs


def _results(study: Study, table: str, task: LabellingTask) -> Iterator[Result]:
    if study.compute and study.packs.has(task.train):
        _run_all(study, task)
    for row in ROWS:
        runs = curves(study, task, row)
        for metric, values in _values(runs).items():
            mean, deviation = mean_and_deviation(values)
            yield Result(
                table=table,
                group=task.title,
                experiment=task.title,
                row=row,
                metric=metric,
                mean=mean,
                deviation=deviation,
                runs=len(runs),
                runs_of="training",
                images=task.test_images,
                **beside_paper("active-learning", task.title, row, metric),
            )


def _values(runs: Sequence[list[dict[str, Any]]]) -> dict[str, list[float]]:
    """Metric -> its value in each run: means over the cycles after an acquisition, and the points of the curve."""
    accuracies = [[100 * cycle["metrics"]["accuracy"] for cycle in run] for run in runs]
    losses = [[cycle["metrics"]["nll"] for cycle in run] for run in runs]
    points = {
        f"{_POINT}{cycle['labelled']}": [run[place] for run in accuracies]
        for place, cycle in enumerate(runs[0] if runs else [])
    }
    means = {"ACC": accuracies, "NLL": losses}
    return {metric: [float(np.mean(run[1:])) for run in values] for metric, values in means.items()} | points


def _run_all(study: Study, task: LabellingTask) -> None:
    """In an order in which a run that is stopped leaves whole comparisons; what is finished is not run again."""
    lab: Laboratory | None = None
    folder = _folder(study, task)
    held = storage.list_files(folder, ".json")
    if TASK not in held:
        storage.write_atomically(storage.join(folder, TASK), json.dumps(task.settings, indent=1).encode())
    rows = [row for row in ROWS if task.rows is None or row in task.rows]
    groups = ([row for row in rows if row in FIRST], [row for row in rows if row not in FIRST])
    for row, seed in [(row, seed) for group in groups for seed in range(study.seeds) for row in group]:
        file = f"{ROWS[row]}-seed{seed}.json"
        if file in held:
            continue
        lab = lab or Laboratory(task, study.packs)
        say(f"active learning on {task.title}: {row}, seed {seed}")
        cycles = [asdict(cycle) | {"labelled": len(cycle.labelled)} for cycle in lab.run(ROWS[row], seed)]
        storage.write_atomically(storage.join(folder, file), json.dumps(cycles, indent=1).encode())


def _folder(study: Study, task: LabellingTask) -> str:
    """Where the runs of a task are.

    Raises:
        UsageError: they were made in another way, and would be taken for runs of this one.
    """
    folder = study.place("active-learning", task.name)
    if TASK in storage.list_files(folder, ".json"):
        held = json.loads(storage.read_bytes(storage.join(folder, TASK)))
        changed = [
            f"{key} {held.get(key)}, now {value}" for key, value in task.settings.items() if held.get(key) != value
        ]
        if changed:
            raise UsageError(
                f"{storage.mask(folder)}: its runs had {'; '.join(changed)}; delete it, or take another --output"
            )
    return folder


class Laboratory:
    """Pool and test images of a task in memory, and how a network is trained, scored and judged on them."""

    def __init__(self, task: LabellingTask, packs: Packs) -> None:
        self.task = task
        probe = Classifier.load(task.spec)
        self.images, self.labels = load_labelled([packs.find(task.train)], probe, task.pool)
        test, self.test_labels = load_labelled([packs.find(task.test)], probe, task.test_images)
        self.inputs, self.test_inputs = probe.normalize(self.images), probe.normalize(test)

    def run(self, method: str, seed: int) -> Iterator[Cycle]:
        """The cycles of one method; every method of a seed begins with the same labels and the same weights."""
        score, _, diversity = method.partition("-")
        acquire = partial(self.diverse if diversity else self.score, score, seed)
        return active_learning(
            partial(self.train, seed),
            at_random if score == RANDOM.lower() else acquire,
            self.evaluate,
            images=len(self.labels),
            initial=self.task.initial,
            per_cycle=self.task.per_cycle,
            cycles=self.task.cycles,
            candidates=self.task.candidates,
            seed=seed,
        )

    def train(self, seed: int, rows: Rows) -> tuple[Classifier, Rows]:
        """A network trained from its initial weights on ``rows``; and these, which Laplace is fitted on."""
        torch.manual_seed(seed)
        classifier = Classifier.load(self.task.spec)
        chosen = torch.from_numpy(rows)
        epochs = max(1, round(self.task.steps * self.task.batch / len(rows)))
        train_network(classifier.network, self.inputs[chosen], self.labels[chosen], epochs, self.task.batch, seed=seed)
        return classifier, rows

    def score(self, score: str, seed: int, model: tuple[Classifier, Rows], rows: Rows) -> Tensor:
        """The column of one score for ``rows`` of the pool."""
        classifier, labelled = model
        state = None
        if score == "laplace":
            known = torch.from_numpy(labelled)
            state = posterior.fit(classifier.network, self.inputs[known], self.labels[known])
        samples = self.task.samples or COPIES.get(score, 0)
        scorer = Scorer(classifier, [score], seed=seed, samples=samples, posterior=state)
        batches = torch.from_numpy(rows).split(BATCH)
        return torch.cat([scorer(self.images[batch], [str(row) for row in batch.tolist()])[score] for batch in batches])

    def diverse(self, score: str, seed: int, model: tuple[Classifier, Rows], rows: Rows) -> Tensor:
        """1 for the ``rows`` to be labelled: of those with the highest scores, far apart in the network's features."""
        count = self.task.per_cycle
        likely = self.score(score, seed, model, rows).argsort(descending=True, stable=True)[: POOL * count]
        in_features = features(model[0], self.images[torch.from_numpy(rows)[likely]])
        chosen = torch.zeros(len(rows))
        chosen[likely[torch.from_numpy(k_center(in_features.double().numpy(), count))]] = 1
        return chosen

    @torch.no_grad()
    def evaluate(self, model: tuple[Classifier, Rows]) -> dict[str, float]:
        """Accuracy and mean negative log-likelihood on the test images."""
        logits = torch.cat([model[0].network(inputs) for inputs in self.test_inputs.split(256)])
        loss = torch.nn.functional.cross_entropy(logits, self.test_labels)
        return {"accuracy": float((logits.argmax(1) == self.test_labels).double().mean()), "nll": float(loss)}
