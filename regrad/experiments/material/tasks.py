"""What active learning is measured on: Table 3's datasets, and the same in other ways."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import nn

from regrad import networks


@dataclass(frozen=True)
class LabellingTask:
    """One dataset, and how labels of it are asked for.

    Attributes:
        name: of the folder that keeps its runs.
        title: as the paper's table calls it, for its numbers, or as we call what it has not.
        spec, train, test: of the network and the packs.
        initial, per_cycle: the paper's m1 and m2.
        steps, batch: of AdamW after each acquisition, whatever the number of labels.
        pool: the first so many training images.
        candidates: of the pool, drawn each cycle and scored: the paper scores all.
        samples: N of the smoothed scores; 0 leaves ``perturb_x`` its own.
        test_images: the first so many of the test pack.
        cycles: of an acquisition and a training.
        rows: the methods that are run; None for all.
    """

    name: str
    title: str
    spec: str
    train: str
    test: str
    initial: int
    per_cycle: int
    steps: int
    batch: int
    pool: int = 20_000
    candidates: int = 5000
    samples: int = 0
    test_images: int = 1000
    cycles: int = 10
    rows: tuple[str, ...] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What the numbers of one method depend on."""
        return {key: value for key, value in asdict(self).items() if key not in ("name", "title", "rows")}

    @property
    def protocol(self) -> str:
        """How it is done here, in a sentence for readers of the table."""
        of = f"{self.candidates} candidates" if self.candidates < self.pool else "all that are left"
        return (
            f"{self.title}: {self.initial} labels, {self.per_cycle} more in each of {self.cycles} cycles, of {of}, "
            f"N = {self.samples}, {self.steps} steps with {self.batch} images"
        )


def _few_labels(name: str, title: str) -> LabellingTask:
    packs = (f"{name}-train.parquet", f"{name}-test.parquet")
    return LabellingTask(
        name, title, "regrad.networks:mnist_cnn", *packs, initial=20, per_cycle=20, steps=100, batch=16
    )


def _photographs(name: str, title: str, spec: str, training: str = "train", test: str = "test") -> LabellingTask:
    packs = (f"{name}-{training}.parquet", f"{name}-{test}.parquet")
    return LabellingTask(
        name, title, f"regrad.networks:{spec}", *packs, initial=500, per_cycle=100, steps=200, batch=32
    )


_MNIST, _FMNIST = _few_labels("mnist", "MNIST"), _few_labels("fmnist", "FMNIST")
_C10 = _photographs("cifar10", "C10", "cifar_cnn")
_C100 = replace(
    _photographs("cifar100", "C100", "cifar100_cnn", "trainsubset"),
    initial=1000,
    per_cycle=300,
    pool=5000,
    steps=400,  # with 200 it learns nothing of more labels
)

_SVHN = replace(
    _photographs("svhn", "SVHN", "svhn_cnn", "pool", "held"),
    per_cycle=200,
    pool=8000,
    candidates=1000,
    cycles=3,
)


def _of_fewer(task: LabellingTask, candidates: int) -> LabellingTask:
    """The same with so many candidates, which leaves time to smooth."""
    name, title = f"{task.name}-{candidates}", f"{task.title}, {candidates} candidates"
    return replace(task, name=name, title=title, candidates=candidates, samples=4)


def softmax_twice() -> tuple[nn.Module, networks.Known]:
    """The standard CNN for MNIST that hands over probabilities for logits, so that a loss takes the softmax of them."""
    network, known = networks.mnist_cnn()
    return nn.Sequential(network, nn.Softmax(1)), known | {"outputs": "logits"}  # as which they are meant to be taken


def _quick(task: LabellingTask, name: str, title: str, samples: int) -> LabellingTask:
    """Two cycles that take a minute, with more candidates than k-center looks at."""
    few = replace(task, initial=20, per_cycle=10, pool=2000, candidates=150, test_images=300, cycles=2)
    return replace(few, steps=40, batch=16, name=name, title=title, samples=samples)


#: Table -> its tasks, in order.
TASKS = {
    "active-learning": (_MNIST, _FMNIST, _C10, _C100, _SVHN),
    "active-learning-more": (
        _of_fewer(_MNIST, 100),
        _of_fewer(_MNIST, 500),
        _of_fewer(_FMNIST, 500),
        _of_fewer(_C10, 500),
        _of_fewer(_C100, 500),
        replace(
            _MNIST,
            name="mnist-twice",
            title="MNIST, softmax twice",
            spec="regrad.experiments.material.tasks:softmax_twice",
            rows=("Random", "Entropy"),  # for its NLL; Laplace needs logits that a linear layer gives
        ),
    ),
}
#: The same for the quick form.
QUICK_TASKS = {
    "active-learning": (_quick(_SVHN, "svhn-quick", "SVHN, quick", samples=0),),
    "active-learning-more": (_quick(_MNIST, "mnist-quick-smoothed", "MNIST, quick, smoothed", samples=2),),
}
