"""Table 5, and the readings that the paper leaves open: what each setting of REGrad* changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from regrad.experiments.material.experiments import Experiment
from regrad.experiments.measured.results import Result
from regrad.experiments.measured.scoring import Setting, Study
from regrad.experiments.measured.separation import gather, results

#: The paper's own pair, for its numbers beside ours, after what stands in for it: small grey images, and photographs.
PAIRS = (
    Experiment("fmnist-cnn", "fmnist", "mnist"),
    Experiment("resnet20-cifar10", "cifar10", "tinyimagenet-not-cifar10"),
    Experiment("svhn-cnn", "svhn", "cifar10", paper=True),
)


@dataclass(frozen=True)
class Variant:
    """One setting, and the score that shows it: ``regrad_layers`` without noise, ``regrad`` with it."""

    name: str
    score: str
    flags: dict[str, str] = field(default_factory=dict)

    @property
    def setting(self) -> Setting:
        """Its outputs go by the flags, so that rows which say the same share them."""
        name = "-".join(f"{key}-{value}" for key, value in sorted(self.flags.items())) or "default"
        return Setting(f"{self.score}-{name}", (self.score,), self.flags)


ROWS = (
    Variant("λ → 0", "regrad_layers", {"depth-decay": "0"}),
    Variant("λ → ∞", "regrad_layers", {"depth-decay": "inf"}),
    *(Variant(f"λ = {decay}", "regrad_layers", {"depth-decay": decay}) for decay in ("0.25", "0.3", "0.35")),
    *(Variant(f"λ = 0.3, σ = {sigma}", "regrad", {"sigma": sigma}) for sigma in ("0.015", "0.02", "0.025")),
)
OPEN = (
    Variant("λ = 1", "regrad_layers", {"depth-decay": "1"}),
    Variant("a layer is a stage", "regrad_layers", {"layers": "stages"}),
    *(Variant(f"σ = {sigma}", "regrad", {"sigma": sigma}) for sigma in ("0.1", "0.2")),
    *(Variant(f"N = {samples}", "regrad", {"samples": samples}) for samples in ("1", "4", "25", "50")),
    Variant("σ = 0.02 of the pixel", "regrad", {"noise-space": "pixel"}),
)


def hyperparameters(study: Study, pairs: Sequence[Experiment] = PAIRS) -> list[Result]:
    """AUROC and AUPR of every setting on every pair, one run each."""
    return [result for experiment in pairs for row in (*ROWS, *OPEN) for result in _cell(study, experiment, row)]


def _cell(study: Study, experiment: Experiment, row: Variant) -> Iterator[Result]:
    runs = gather(study, experiment, row.setting, seeds=1)
    yield from results("hyperparameters", experiment, {row.name: row.score}, runs)
