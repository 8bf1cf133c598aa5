"""Table 3: active learning, where each method asks for the labels it finds the network to need most."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regrad import Classifier, Scorer, posterior, storage
from regrad.active_learning import Cycle, Rows, active_learning, at_random
from regrad.errors import UsageError
from regrad.pipeline.features import features
from regrad.pipeline.load import load_labelled
from regrad.reproduce import methods
from regrad.reproduce.packs import Packs
from regrad.reproduce.results import Result, beside_paper, spread
from regrad.reproduce.scoring import Study, say
from regrad.selection import k_center
from regrad.training import fit

RANDOM = "Random"
#: As jobs/select.py --diversity k-center chooses: of the most uncertain, those that lie far from each other.
DIVERSE = {"REGrad*, k-center": "regrad-k-center", "Entropy, k-center": "entropy-k-center"}
POOL = 10  # times the number chosen: the most uncertain that they are chosen of, as by jobs/select.py
ROWS = {**methods.PAPER, RANDOM: "random", **DIVERSE}
PLAIN = tuple(row for row in ROWS if row not in DIVERSE)
FIRST = ("REGrad*", RANDOM, "Entropy", "ExGrad", *DIVERSE)  # of every seed, then the others
CYCLES = 10
TASK = "task.json"  # how the runs beside it were made


@dataclass(frozen=True)
class Task:
    """One dataset of Table 3.

    Attributes:
        title: as the paper's table calls it, for its numbers, or as we call what it has not.
        spec, train, test: of the network and the packs.
        initial, per_cycle: the paper's m1 and m2.
        pool: the first so many training images, of which ``candidates`` are scored a cycle: the paper scores all.
        samples: N: gradients of every candidate after every acquisition are dear.
        test_images: the first so many of the test pack.
        steps, batch: of AdamW after each acquisition, whatever the number of labels.
        rows: the methods that are measured.
    """

    title: str
    spec: str
    train: str
    test: str
    initial: int
    per_cycle: int
    pool: int = 20_000
    candidates: int = 500
    samples: int = 4
    test_images: int = 1000
    steps: int = 100
    batch: int = 16
    rows: tuple[str, ...] = PLAIN

    @property
    def settings(self) -> dict[str, Any]:
        """What the numbers of one method depend on."""
        return {key: value for key, value in asdict(self).items() if key not in ("title", "rows")}

    @property
    def protocol(self) -> str:
        """How it is done here, in a sentence for readers of the table."""
        return (
            f"{self.title}: {self.initial} labels, {self.per_cycle} more each cycle, of {self.candidates} candidates, "
            f"N = {self.samples}, {self.steps} steps with {self.batch} images"
        )


_MNIST = Task("MNIST", "regrad.networks:mnist_cnn", "mnist-train.parquet", "mnist-test.parquet", 20, 20)
_CIFAR = Task(
    "C10",
    "regrad.networks:cifar_cnn",
    "cifar10-train.parquet",
    "cifar10-test.parquet",
    500,
    100,
    steps=200,
    batch=32,
)
TASKS = {
    "mnist": replace(_MNIST, rows=tuple(ROWS)),
    "mnist-few": replace(_MNIST, title="MNIST, few candidates", candidates=100),
    "mnist-many": replace(_MNIST, title="MNIST, many candidates", candidates=5000, samples=0, rows=FIRST),
    "fmnist": replace(
        _MNIST, title="FMNIST", train="fmnist-train.parquet", test="fmnist-test.parquet", rows=tuple(ROWS)
    ),
    "cifar10": _CIFAR,
    "cifar100": replace(
        _CIFAR,
        title="C100",
        spec="regrad.networks:cifar100_cnn",
        train="cifar100-trainsubset.parquet",
        test="cifar100-test.parquet",
        initial=1000,
        per_cycle=300,
        pool=5000,
        steps=400,  # with 200 it learns nothing of more labels
    ),
    "svhn": replace(
        _CIFAR, title="SVHN", spec="regrad.networks:svhn_cnn", train="svhn-train.parquet", test="svhn-test.parquet"
    ),
}


def labelling(study: Study) -> list[Result]:
    """Mean accuracy and NLL over the cycles after an acquisition, per dataset, method and seed."""
    return [result for name in TASKS for result in _results(study, name)]


def curves(study: Study, task: str, row: str) -> list[list[dict[str, Any]]]:
    """The cycles of each finished seed of a method."""
    folder = _folder(study, task)
    found = []
    for seed in range(study.seeds):
        file = f"{ROWS[row]}-seed{seed}.json"
        if file in storage.list_files(folder, ".json"):
            found.append(json.loads(storage.read_bytes(storage.join(folder, file))))
    return found


def _results(study: Study, name: str) -> Iterator[Result]:
    if study.compute and study.packs.has(TASKS[name].train):
        _run_all(study, name)
    title = TASKS[name].title
    for row in TASKS[name].rows:
        found = curves(study, name, row)
        for metric, key, scale in (("ACC", "accuracy", 100), ("NLL", "nll", 1)):
            values = [scale * float(np.mean([cycle["metrics"][key] for cycle in run[1:]])) for run in found]
            mean, deviation = spread(values)
            yield Result(
                table="active-learning",
                group=title,
                experiment=title,
                row=row,
                metric=metric,
                mean=mean,
                deviation=deviation,
                runs=len(found),
                runs_of="training",
                images=TASKS[name].test_images,
                **beside_paper("active-learning", title, row, metric),
            )


def _run_all(study: Study, name: str) -> None:
    """In an order in which a run that is stopped leaves whole comparisons; what is finished is not run again."""
    lab: Laboratory | None = None
    folder = _folder(study, name)
    held = storage.list_files(folder, ".json")
    if TASK not in held:
        storage.write_atomically(storage.join(folder, TASK), json.dumps(TASKS[name].settings, indent=1).encode())
    rows = TASKS[name].rows
    groups = ([row for row in rows if row in FIRST], [row for row in rows if row not in FIRST])
    for row, seed in [(row, seed) for group in groups for seed in range(study.seeds) for row in group]:
        file = f"{ROWS[row]}-seed{seed}.json"
        if file in held:
            continue
        lab = lab or Laboratory(TASKS[name], study.packs)
        say(f"active learning on {name}: {row}, seed {seed}")
        cycles = [asdict(cycle) | {"labelled": len(cycle.labelled)} for cycle in lab.run(ROWS[row], seed)]
        storage.write_atomically(storage.join(folder, file), json.dumps(cycles, indent=1).encode())


def _folder(study: Study, name: str) -> str:
    """Where the runs of a task are.

    Raises:
        UsageError: they were made in another way, and would be taken for runs of this one.
    """
    folder = study.place("active-learning", name)
    if TASK in storage.list_files(folder, ".json"):
        held, now = json.loads(storage.read_bytes(storage.join(folder, TASK))), TASKS[name].settings
        changed = [f"{key} {held.get(key)}, now {value}" for key, value in now.items() if held.get(key) != value]
        if changed:
            raise UsageError(
                f"{storage.mask(folder)}: its runs had {'; '.join(changed)}; delete it, or take another --output"
            )
    return folder


class Laboratory:
    """Pool and test images of a task in memory, and how a network is trained, scored and judged on them."""

    def __init__(self, task: Task, packs: Packs) -> None:
        self.task = task
        probe = Classifier.load(task.spec)
        self.images, self.labels = load_labelled([packs.find(task.train)], probe, task.pool)
        test, self.test_labels = load_labelled([packs.find(task.test)], probe, task.test_images)
        self.inputs, self.test_inputs = probe.normalize(self.images), probe.normalize(test)

    def run(self, method: str, seed: int, cycles: int = CYCLES) -> Iterator[Cycle]:
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
            cycles=cycles,
            candidates=self.task.candidates,
            seed=seed,
        )

    def train(self, seed: int, rows: Rows) -> tuple[Classifier, Rows]:
        """A network trained from its initial weights on ``rows``; and these, which Laplace is fitted on."""
        torch.manual_seed(seed)
        classifier = Classifier.load(self.task.spec)
        chosen = torch.from_numpy(rows)
        epochs = max(1, round(self.task.steps * self.task.batch / len(rows)))
        fit(classifier.network, self.inputs[chosen], self.labels[chosen], epochs, self.task.batch, seed=seed)
        return classifier, rows

    def score(self, score: str, seed: int, model: tuple[Classifier, Rows], rows: Rows) -> Tensor:
        """The column of one score for ``rows`` of the pool."""
        classifier, labelled = model
        state = None
        if score == "laplace":
            known = torch.from_numpy(labelled)
            state = posterior.fit(classifier.network, self.inputs[known], self.labels[known])
        scorer = Scorer(classifier, [score], seed=seed, samples=self.task.samples, posterior=state)
        return scorer(self.images[torch.from_numpy(rows)], [str(row) for row in rows])[score]

    def diverse(self, score: str, seed: int, model: tuple[Classifier, Rows], rows: Rows) -> Tensor:
        """1 for the ``rows`` to be labelled: of those with the highest scores, far apart in the network's features."""
        count = self.task.per_cycle
        likely = self.score(score, seed, model, rows).argsort(descending=True, stable=True)[: POOL * count]
        found = features(model[0], self.images[torch.from_numpy(rows)[likely]])
        chosen = torch.zeros(len(rows))
        chosen[likely[torch.from_numpy(k_center(found.double().numpy(), count))]] = 1
        return chosen

    @torch.no_grad()
    def evaluate(self, model: tuple[Classifier, Rows]) -> dict[str, float]:
        """Accuracy and mean negative log-likelihood on the test images."""
        logits = torch.cat([model[0].network(inputs) for inputs in self.test_inputs.split(256)])
        loss = torch.nn.functional.cross_entropy(logits, self.test_labels)
        return {"accuracy": float((logits.argmax(1) == self.test_labels).double().mean()), "nll": float(loss)}
