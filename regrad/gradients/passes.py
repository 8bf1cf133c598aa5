"""Every kind of class-gradient norms that is asked for, from as few passes of an engine as there are sets of copies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from queue import SimpleQueue
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from regrad.errors import UsageError
from regrad.gradients import choose
from regrad.gradients.depths import Depths
from regrad.gradients.exact import ExactEngine
from regrad.gradients.layers import Layer, find_layers, layer_weights
from regrad.gradients.norms import ClassNorms, Engine
from regrad.gradients.reference import ReferenceEngine
from regrad.gradients.sketching.sketch import SketchEngine
from regrad.network.copies import computes_in, floating_type, plain_attention, private_copy
from regrad.network.memory import FEWEST, even_slices, out_of_memory
from regrad.network.threads import SideBySide
from regrad.precision import computing
from regrad.storage.redact import reason


@dataclass(frozen=True)
class Target:
    """Weights q of the classes, which add up to 1, of whose gradient sum_c q_c g_c the norm is asked for.

    Attributes:
        weights: of log-probabilities (B, C): (B, E, C).
        of_each_class: whether there are as many as classes, E = C, or one, E = 1.
    """

    weights: Callable[[Tensor], Tensor]
    of_each_class: bool = False

    def count(self, classes: int) -> int:
        """E."""
        return classes if self.of_each_class else 1


def contrasts(log_p: Tensor) -> Tensor:
    """p + e_c - e_y for every class c, y the most probable: the gradient of these weights is g_c - g_y, (B, C, C).

    That of y itself is p, whose gradient is zero.
    """
    units = torch.eye(log_p.shape[1], dtype=log_p.dtype, device=log_p.device)
    return log_p.exp()[:, None] + (units - units[log_p.argmax(1)][:, None])


TARGETS = {
    "predicted": Target(lambda log_p: log_p.exp()[:, None]),
    "uniform": Target(lambda log_p: torch.full_like(log_p, 1 / log_p.shape[1])[:, None]),
    "contrast": Target(contrasts, of_each_class=True),
}
Copies = Callable[[bool, slice | list[int]], Tensor]  # with noise or not, of some images: (B, copies, channels, H, W)
MOST_TOGETHER = 64  # copies in a piece where classes have depths: more images wait longer for the deepest of them
LIKELY, OTHERS = 5, 5  # classes of an image on which the error is measured: the most probable, and some at random


class Kind(Protocol):
    """Which norms: over the perturbed copies or on the clean image, layers weighed by Eq. 12 or all alike.

    ``target`` None stands for all classes, a name of :data:`TARGETS` for what is said there. ``power`` is the gamma of
    whoever needs no more of all classes than sum_c p_c^gamma ||a g_c||.
    """

    @property
    def smoothed(self) -> bool: ...  # noqa: D102

    @property
    def decayed(self) -> bool: ...  # noqa: D102

    @property
    def target(self) -> str | None: ...  # noqa: D102

    @property
    def power(self) -> float | str | None: ...  # noqa: D102


@dataclass(frozen=True)
class GradientSettings:
    """How gradients are taken; see :class:`regrad.scorer.Scorer`, which has the same names."""

    samples: int
    depth_decay: float
    engine: str
    tolerance: float
    layers: str
    directions: int
    seed: int


Build = Callable[[nn.Module, list[Layer], choose.Pass, Tensor, GradientSettings], Engine]


def _exact(network: nn.Module, layers: list[Layer], cut: choose.Pass, probe: Tensor, _: GradientSettings) -> Engine:
    targets = None if cut.classes else cut.targets
    return ExactEngine(network, layers, cut.weights, probe, cut.copies, targets, depths=cut.depths)


def _sketch(
    network: nn.Module, layers: list[Layer], cut: choose.Pass, probe: Tensor, settings: GradientSettings
) -> Engine:
    return SketchEngine(network, layers, cut.weights, probe, settings.directions, settings.seed)


def _reference(network: nn.Module, layers: list[Layer], cut: choose.Pass, probe: Tensor, _: GradientSettings) -> Engine:
    return ReferenceEngine(network, layers, cut.weights, probe)


ENGINES: dict[str, Build] = {"exact": _exact, "sketch": _sketch, "reference": _reference}


@dataclass
class _Run:
    """One engine over one set of copies, and which of its weightings and targets each kind takes.

    ``depths`` are those of the classes, if there are several, ``step`` is how many images go at once, where memory has
    been planned, and ``twins`` are further engines that are the same, for pieces side by side.
    """

    smoothed: bool
    kinds: list[Kind]
    decays: list[bool]
    targets: list[str]
    engine: Engine
    depths: Depths | None = None
    step: int | None = None
    twins: Sequence[Engine] = ()

    def __call__(self, copies: Tensor, engine: Engine | None = None) -> ClassNorms:
        return (engine or self.engine)(copies, _distributions(self.targets), self.classes)

    def pieces(self, copies: Copies, images: int, dtype: torch.dtype, together: SideBySide) -> ClassNorms:
        """Of all ``images``, piece by piece or several side by side.

        A piece is differentiated as deep as one of its images needs, so that those of about one cost go together.
        """
        free = SimpleQueue[Engine]()
        for engine in (self.engine, *self.twins):
            free.put(engine)

        def piece(part: slice | list[int]) -> ClassNorms:
            engine = free.get()
            try:
                return self(copies(self.smoothed, part).to(dtype), engine)
            finally:
                free.put(engine)

        parts = even_slices(images, self.step, 1 + len(self.twins))
        order = self._dearest_first(copies, parts, dtype) if self.depths and len(parts) > 1 else None
        functions = [partial(piece, part if order is None else order[part].tolist()) for part in parts]
        norms = ClassNorms.of_parts(together(functions) if self.twins else [function() for function in functions])
        return norms if order is None else norms.of_images(order.argsort())

    @torch.no_grad()
    def _dearest_first(self, copies: Copies, parts: Sequence[slice], dtype: torch.dtype) -> Tensor:
        """The images by the cost of their classes, found from the clean ones: int64 (B,)."""
        assert self.depths is not None
        logits = [self.engine.network(copies(False, part)[:, 0].to(dtype)).double() for part in parts]
        return self.depths.cost(torch.cat(logits).log_softmax(1)).argsort(descending=True, stable=True)

    @property
    def classes(self) -> bool:
        """Whether some kind asks for all classes; else there are the targets alone."""
        return _of_classes(self.kinds)

    def part(self, norms: ClassNorms, kind: Kind) -> ClassNorms:
        """What ``kind`` asks for, of all the run's ``norms``."""
        classes = norms.logits.shape[-1]
        first, count = 0, classes
        if kind.target:
            before = self.targets[: self.targets.index(kind.target)]
            first = classes * self.classes + sum(TARGETS[name].count(classes) for name in before)
            count = TARGETS[kind.target].count(classes)
        return norms.part(self.decays.index(kind.decayed), slice(first, first + count))


class Passes:
    """The engines that a set of kinds needs.

    Args:
        network: the caller's; copies of it are made.
        kinds: the kinds of norms, each once.
        inputs: what the network receives for the probe images, (B, channels, H, W), on the device to compute on.
        dtype: what the engines compute in once they have been built and checked, which is done in float32 at least:
            half a dozen bits tell no right rule from a wrong one.
        plan: of another of the same settings, so that it is not resolved again.

    Attributes:
        plan: what was resolved; see :func:`regrad.gradients.choose.resolve`.
    """

    @computing("float32")  # rules are compared with autograd
    def __init__(
        self,
        network: nn.Module,
        kinds: Sequence[Kind],
        inputs: Tensor,
        settings: GradientSettings,
        dtype: torch.dtype = torch.float32,
        plan: dict[str, Any] | None = None,
    ) -> None:
        self._network, self._inputs, self._settings, self._dtype = network, inputs, settings, dtype
        if inputs.dtype in (torch.float16, torch.bfloat16) and computes_in(torch.float32, self._copy(), inputs):
            self._inputs = inputs = inputs.float()
        own = self._copy()
        self._layers = find_layers(own, inputs[:3], settings.layers)
        self._decayed = layer_weights(self._layers, settings.depth_decay)
        self._together = SideBySide(1)
        self._groups = {
            smoothed: group for smoothed in (True, False) if (group := [k for k in kinds if k.smoothed == smoothed])
        }
        self.plan = plan or self._resolve(own, settings.engine)
        try:
            self._runs = self._build()
        except UsageError as error:
            if plan or settings.engine != "auto" or self.plan["engine"] == "exact":
                raise
            self.plan = self._resolve(own, "exact") | {"why": str(error)}
            self._runs = self._build()
        if plan is None:
            engines = [run.engine for run in self._runs]
            remarks = dict.fromkeys(remark for engine in engines for remark in engine.remarks)
            self.plan |= {
                "without_rule": list(dict.fromkeys(name for engine in engines for name in engine.without_rule)),
                "why": "; ".join([self.plan["why"], *remarks]),
            }

    def __call__(self, copies: Copies, images: int) -> tuple[dict[Kind, ClassNorms], dict[bool, Tensor]]:
        """The norms of every kind, each with S = 1, and the logits with and without noise, (B, copies, C).

        Args:
            copies: gives what the network receives for some of the ``images``: with noise, or clean alone.
        """
        by_kind: dict[Kind, ClassNorms] = {}
        logits: dict[bool, Tensor] = {}
        for run in self._runs:
            with plain_attention():  # once: it is of the process, not of a thread
                norms = run.pieces(copies, images, self._dtype, self._together)
            logits[run.smoothed] = norms.logits
            by_kind |= {kind: run.part(norms, kind) for kind in run.kinds}
        return by_kind, logits

    def plan_memory(self, memory: int, most_inputs: int) -> None:
        """Keep each pass within ``memory`` bytes: so many images at once or, where one is too much, copies.

        On a CPU pieces of the batch go side by side, as many as there are threads and as have some images each; they
        are small where an image is differentiated as deep as any of its piece. Elsewhere the memory that is left beside
        the images is for classes at once.
        """
        on_cpu = self._inputs.device.type == "cpu"
        threads = torch.get_num_threads() if on_cpu else 1
        for run in self._runs:
            copies, left = self._copies(run.smoothed), max(0, memory - run.engine.bytes_beside)
            fitting = min(most_inputs, left // run.engine.bytes_per_input)
            run.twins = run.engine.twins(min(threads, fitting // (FEWEST * copies)) - 1)
            fitting //= 1 + len(run.twins)
            if fitting < FEWEST * copies:
                run.engine.most_inputs = max(2, fitting)
            run.step = max(1, (min(fitting, MOST_TOGETHER) if on_cpu and run.depths else fitting) // copies)
            for engine in (run.engine, *run.twins):
                engine.afford(left // (1 + len(run.twins)))
        self._together = SideBySide(threads)

    def planned_bytes(self, images: int) -> int:
        """The most that a pass over so many images was planned to take beside the network."""
        planned = []
        for run in self._runs:
            at_once = (run.step or images) * (1 + len(run.twins))
            inputs = min(images, at_once) * self._copies(run.smoothed)
            fitting = min(inputs, run.engine.most_inputs or inputs)
            planned.append(run.engine.bytes_beside + run.engine.bytes_of(fitting))
        return max(planned)

    def compile(self) -> None:
        """Let torch.compile have the network of every engine: for a measurement of whether that pays."""
        for run in self._runs:
            run.engine.network.compile()

    def error(self, copies: Copies, images: int, dtype: torch.dtype | None = None) -> Tensor:
        """|S - S'| / S with S = sum_c sqrt(p_c) ||a g_c|| over all layers, by autograd, and S' of the engine: (B,).

        Of the first weighting, on the most probable classes and some drawn at random, which stand for the others;
        without scores of the classes S is the sum of the targets' norms.
        S is computed in ``dtype``, in the network's own unless told, and never rounded to TF32.
        """
        run, dtype = self._runs[0], dtype or self._inputs.dtype
        return torch.cat(
            [self._error(run, copies(run.smoothed, part), dtype) for part in even_slices(images, run.step)]
        )

    def _error(self, run: _Run, x: Tensor, dtype: torch.dtype) -> Tensor:
        estimate = run(x.to(self._dtype))
        p, norms = estimate.logits[:, 0].softmax(1), estimate.norms[0]
        reference = ReferenceEngine(self._copy(), self._layers, self._rows(run.decays)[:1], self._inputs, dtype)
        with computing("float32"):
            if run.classes:
                classes, stand_for = _some_classes(p)
                got, wanted = norms.gather(1, classes), reference(x, classes=classes).norms[0]
                factor = p.gather(1, classes).sqrt() * stand_for
            else:
                got, wanted = norms, reference(x, _distributions(run.targets), classes=False).norms[0]
                # The norm for the prediction itself is zero, and has no relative error.
                counts = [TARGETS[name].count(p.shape[1]) for name in run.targets]
                factor = got.new_tensor([float(name != "predicted") for name in run.targets])
                factor = factor.repeat_interleave(torch.tensor(counts, device=got.device))
        difference = (factor * (got - wanted)).sum(1).abs()
        return (difference / (factor * wanted).sum(1).clamp_min(1e-300)).cpu()

    def _resolve(self, own: nn.Module, engine: str) -> dict[str, Any]:
        passes = [self._pass(smoothed, kinds) for smoothed, kinds in self._groups.items()]
        settings = self._settings
        return choose.resolve(
            own, engine, self._layers, self._decayed, passes, self._inputs, settings.tolerance, settings.directions
        )

    def _build(self) -> list[_Run]:
        build = ENGINES[self.plan["engine"]]
        settings = replace(self._settings, directions=self.plan.get("directions", self._settings.directions))
        runs = []
        for smoothed, kinds in self._groups.items():
            (cut,) = choose.kept(self._layers, [self._pass(smoothed, kinds)], self.plan)
            engine = build(self._copy(), self._layers, cut, self._inputs, settings)
            if self._dtype != self._inputs.dtype:
                engine.convert(self._dtype)
                self._rehearse(engine)
            runs.append(_Run(smoothed, kinds, _decays(kinds), _targets(kinds), engine, cut.depths))
        return runs

    def _rehearse(self, engine: Engine) -> None:
        """Two inputs in the type that it was converted to: a network may make numbers of another type itself."""
        try:
            engine(self._inputs[:2, None].to(self._dtype), _distributions(["uniform"]), classes=False)
        except Exception as error:
            if out_of_memory(error):
                raise
            raise UsageError(
                f"{type(self._network).__name__} does not compute in {self._dtype}: {reason(error)}; use --precision "
                "float32"
            ) from error

    def _pass(self, smoothed: bool, kinds: Sequence[Kind]) -> choose.Pass:
        each = [TARGETS[name].of_each_class for name in _targets(kinds)]
        classes = _of_classes(kinds) + sum(each)
        rows, powers = self._rows(_decays(kinds)), _powers(kinds)
        return choose.Pass(self._copies(smoothed), rows, len(each) - sum(each), classes, powers)

    def _rows(self, decays: Sequence[bool]) -> Tensor:
        """a_l by Eq. 12 or 1, for each of ``decays``: (S, layers), before the cut."""
        return torch.stack([self._decayed if decayed else torch.ones_like(self._decayed) for decayed in decays])

    def _copies(self, smoothed: bool) -> int:
        return self._settings.samples + 1 if smoothed else 1

    def _copy(self) -> nn.Module:
        own = private_copy(self._network).to(self._inputs.device)
        return own if floating_type(own) == self._inputs.dtype else own.to(self._inputs.dtype)


def _decays(kinds: Sequence[Kind]) -> list[bool]:
    """The weightings that ``kinds`` need, each once."""
    return list(dict.fromkeys(kind.decayed for kind in kinds))


def _targets(kinds: Sequence[Kind]) -> list[str]:
    """The further targets that ``kinds`` need, each once."""
    return list(dict.fromkeys(kind.target for kind in kinds if kind.target))


def _of_classes(kinds: Sequence[Kind]) -> bool:
    return any(kind.target is None for kind in kinds)


def _powers(kinds: Sequence[Kind]) -> tuple[float, ...]:
    """Of those of all classes, each once; none if one of them needs more than a weighed sum."""
    powers = dict.fromkeys(kind.power for kind in kinds if kind.target is None)
    return () if None in powers else tuple(float(power) for power in powers if power is not None)


def _distributions(targets: Sequence[str]) -> Callable[[Tensor], Tensor] | None:
    """What engines take for ``targets``."""
    if not targets:
        return None
    return lambda log_p: torch.cat([TARGETS[name].weights(log_p) for name in targets], 1)


def _some_classes(p: Tensor) -> tuple[Tensor, Tensor]:
    """Classes of each image, int64 (B, T), and how many each stands for, (T,)."""
    number = p.shape[1]
    ranked = p.argsort(1, descending=True)
    if number <= LIKELY + OTHERS:
        return ranked, p.new_ones(number)
    drawn = torch.randperm(number - LIKELY, generator=torch.Generator().manual_seed(0))[:OTHERS] + LIKELY
    stand_for = torch.tensor([1.0] * LIKELY + [(number - LIKELY) / OTHERS] * OTHERS, dtype=p.dtype, device=p.device)
    return torch.cat([ranked[:, :LIKELY], ranked[:, drawn.to(p.device)]], 1), stand_for
