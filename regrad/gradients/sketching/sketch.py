"""Class-gradient norms from k random directions: one forward-mode derivative a direction, whatever the class count.

For a direction v over the counted parameters with E v v^T = I, block l scaled by a_l, and J_i v the derivative of copy
i's logits along a v, all C classes at once:

    X_c = 1/k sum_j ( 1/(N+1) sum_i [ (J_i v_j)_c - p_i . J_i v_j ] )^2,      E X_c = ||a * g_c||^2.

A Linear last layer is left out of v and added in closed form A_c (:mod:`regrad.network.head`): A + X is unbiased too.

The root: given the signs that directions share (:mod:`regrad.gradients.sketching.directions`), X is E X chi^2_k / k, so
that sqrt(A + X) is too small in the mean. With T = A + X and r = X / T the engine's norm is

    sqrt(T) (1 + r^2 (1 / b_k - 1)),      b_k = sqrt(2/k) Gamma((k+1)/2) / Gamma(k/2) = 1 - 1/(4k) + O(1/k^2).

Where all is sketched (r = 1) it is unbiased, since sqrt(chi^2_k / k) has mean b_k. Beside an exact part the Taylor term
-Var X / (8 T^{3/2}) = -sqrt(T) r^2 / (4k) is what has to be added: what is left is of order 1/k^2.

Only what lies behind the first counted parameter has derivatives, and all directions go through it together; the
network before it runs once. No layer needs a rule: where a module's output is linear in its parameters, row by row, is
found by trying.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from regrad.errors import UsageError
from regrad.gradients.layers import Layer
from regrad.gradients.norms import ClassNorms
from regrad.gradients.sketching.directions import Block, corrected_root, draw_block
from regrad.gradients.sketching.shortcuts import AddDerivative, along_axis, close, record_calls, row_axis
from regrad.network import head
from regrad.network.copies import plain_attention
from regrad.network.fold import convolution_format, fold_batch_norms
from regrad.network.hooks import Call, hooked
from regrad.network.memory import LIVE, largest_outputs, out_of_memory
from regrad.storage.redact import reason

# Of the largest output, held at once: up to 6.9 were measured, on ResNets whose normalisations are counted layers.
LIVE_DERIVATIVES = 8
LIVE_DRAWS = 3  # the directions, these times a_l, and what is made of them: 2.1 were measured beside the first
Draws = dict[str, dict[str, Tensor]]  # by module and parameter


class SketchEngine:
    """Unbiased squared class-gradient norms from random directions, for any network and number of classes.

    Args:
        network: a private copy (:func:`regrad.network.copies.private_copy`); the engine changes it.
        layers: from :func:`regrad.gradients.layers.find_layers`.
        weights: a_l >= 0, (S, len(layers)); a layer with weight 0 in every row is left out.
        probe: one or more inputs (B, channels, H, W) on which shortcuts are tried.
        directions: k; the relative standard error of a squared norm is at most about sqrt(2/k).
        seed: of the directions.

    Attributes:
        bytes_per_input: memory one copy of one image takes, estimated on the probe; fixes how many go at once.
        bytes_beside: memory a call takes for any number of them.
        most_inputs: how many copies go at once, where that is fewer than a call has; None: all.
        without_rule: none: no layer needs a rule.

    Raises:
        UsageError: a function of the network has no forward-mode derivative.
    """

    without_rule: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def __init__(
        self,
        network: nn.Module,
        layers: list[Layer],
        weights: Tensor,
        probe: Tensor,
        directions: int = 16,
        seed: int = 0,
    ) -> None:
        self.network = network
        self.directions = directions
        self.most_inputs: int | None = None
        self.weights = weights.double().cpu().reshape(-1, len(layers))
        convolution_format(network)
        probe = probe[:2]
        self._head, self._head_place, self._head_bias = _split_head(network, layers, probe)
        kept = [i for i in range(len(layers)) if float(self.weights[:, i].max()) > 0 and i != self._head_place]
        fold_batch_norms(network, {layers[i].name for i in kept}, probe)
        modules = dict(network.named_modules(remove_duplicate=False))
        self._blocks = [
            draw_block(layer.name, i, _values(modules[layer.name], layer), directions, seed)
            for i, layer in enumerate(layers)
            if i in kept and layer.parameters
        ]
        self._modules = {block.module: modules[block.module] for block in self._blocks}
        self._mode = _Mode(together=True, plain=False)
        before, behind = largest_outputs(network, probe, [block.module for block in self._blocks])
        self.bytes_per_input = LIVE * before + LIVE_DERIVATIVES * (directions + 1) * behind
        self.bytes_beside = LIVE_DRAWS * sum(draw.nbytes for block in self._blocks for draw in block.draws.values())
        if self._blocks:
            self._mode = self._find_mode(probe)
            self._mode = replace(self._mode, shortcuts=self._find_shortcuts(probe))

    def afford(self, memory: int) -> None:
        """Take no more: its directions go at once as it is."""

    def bytes_of(self, inputs: int) -> int:
        """Memory that so many copies at once take."""
        return inputs * self.bytes_per_input

    def twins(self, count: int) -> list[SketchEngine]:
        """None: its directions are large operations already, and forward mode is of the process."""
        return []

    def convert(self, dtype: torch.dtype) -> None:
        """Compute in ``dtype`` from now on; shortcuts have been tried in the one before."""
        self.network.to(dtype)
        self._blocks = [block.to(dtype) for block in self._blocks]

    @torch.no_grad()
    def __call__(
        self, copies: Tensor, targets: Callable[[Tensor], Tensor] | None = None, classes: bool = True
    ) -> ClassNorms:
        """Norms for ``copies`` (B, N+1, channels, H, W), whose first copy is the clean image.

        Args:
            copies: what the network receives.
            targets: maps clean log-probabilities (B, C) to further target distributions (B, E, C), appended to the
                classes.
            classes: False leaves the classes out: the targets are all that is found.
        """
        images, number = copies.shape[:2]
        h, tangents = self._derivatives(copies.flatten(0, 1))
        logits = (h if self._head is None else F.linear(h, self._head.weight, self._head.bias)).double()
        logits, h = logits.reshape(images, number, -1), h.reshape(images, number, -1)
        log_p = logits.log_softmax(-1)
        p = log_p.exp()
        extra = targets(log_p[:, 0]) if targets is not None else p.new_zeros(images, 0, p.shape[-1])
        first = 0 if classes else p.shape[-1]
        exact = p.new_zeros(len(self.weights), images, p.shape[-1] + extra.shape[1] - first)
        if self._head is not None:
            squared = self.weights[:, self._head_place].square().to(p.device)
            exact += squared[:, None, None] * head.squared_norms(h, p, extra, self._head_bias)[:, first:]
        squares = [self._squares(t.unflatten(1, (images, number)), p, extra) for t in tangents]
        draws = torch.stack(squares, 1)[..., first:]
        sketched = draws.mean(0)
        roots = corrected_root(exact, sketched, self.directions)
        return ClassNorms(exact + sketched, logits, roots, exact + draws)

    def _squares(self, tangents: Tensor, p: Tensor, extra: Tensor) -> Tensor:
        """(q . W m - mean_i p_i . W t_i)^2 for every target q, with m = mean_i t_i: float64 (k, B, C + E).

        Args:
            tangents: t, derivatives of the head's input, or with W = 1 of the logits, (k, B, N+1, d).
            p: (B, N+1, C).
            extra: (B, E, C).
        """
        # In float64, as the difference of nearly equal numbers for the classes with p close to 1.
        tangents = tangents.double()
        mean = tangents.mean(2)
        pulled = p
        if self._head is not None:
            weight = self._head.weight.double()
            mean, pulled = mean @ weight.T, p @ weight
        expected = torch.einsum("kbid,bid->kb", tangents, pulled) / tangents.shape[2]
        own = torch.cat([mean, torch.einsum("kbc,bec->kbe", mean, extra)], 2)
        return (own - expected[..., None]).square()

    # -- derivatives -------------------------------------------------------------------------------------------------

    def _derivatives(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The output of the network before its head, (M, d), and its derivatives (k, M, d) for each weighting."""
        parts = [self._piece(part) for part in x.split(self.most_inputs or len(x))]
        by_weighting = zip(*(tangents for _, tangents in parts), strict=True)
        return torch.cat([h for h, _ in parts]), [torch.cat(tangents, 1) for tangents in by_weighting]

    def _piece(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        h: Tensor | None = None
        derivatives: list[Tensor | None] = []
        for weights in self.weights.tolist():
            blocks = [block for block in self._blocks if weights[block.place]]
            draws = {
                block.module: {name: draw * weights[block.place] for name, draw in block.draws.items()}
                for block in blocks
            }
            if blocks:
                h, tangents = self._along(x, blocks, draws, self._mode)
            derivatives.append(tangents if blocks else None)
        if h is None:
            with plain_attention():
                h = self.network(x)
        nothing = h.new_zeros(self.directions, *h.shape)
        return h, [nothing if tangents is None else tangents for tangents in derivatives]

    def _along(self, x: Tensor, blocks: list[Block], draws: Draws, mode: _Mode) -> tuple[Tensor, Tensor]:
        """The network's output (M, d) and its derivatives along ``draws`` of ``blocks``, (k, M, d)."""
        zeros = {
            module: {name: torch.zeros_like(draw[0]) for name, draw in own.items()} for module, own in draws.items()
        }

        def moved(steps: Draws) -> Tensor:
            parameters: dict[str, Tensor] = {}
            for block in blocks:
                if block.module not in mode.shortcuts:
                    parameters |= block.moved(steps[block.module])
            with self._adding({block.module: block for block in blocks}, steps, mode.shortcuts):
                return functional_call(self.network, parameters, (x,))

        def directional(one: Draws) -> Any:
            return jvp(moved, (zeros,), (one,))

        with mode.active():
            if mode.together:
                return vmap(directional, out_dims=(None, 0))(draws)  # type: ignore[arg-type]
            number = len(next(iter(next(iter(draws.values())).values())))
            pairs = [directional(_at(draws, j)) for j in range(number)]
            return pairs[0][0], torch.stack([tangent for _, tangent in pairs])

    def _first_draws(self) -> Draws:
        """A single direction, to try things with."""
        return {block.module: {name: draw[:1] for name, draw in block.draws.items()} for block in self._blocks}

    @torch.no_grad()
    def _find_mode(self, probe: Tensor) -> _Mode:
        """The first way in which the network can be differentiated at all, the fastest first."""
        message = ""
        for together in (True, False):
            for plain in (False, True):
                mode = _Mode(together, plain)
                try:
                    with warnings.catch_warnings():  # PyTorch's first forward-mode derivative warns of its own code
                        warnings.filterwarnings("ignore", "`torch.jit.script`", FutureWarning)
                        self._along(probe, self._blocks, self._first_draws(), mode)
                except Exception as error:
                    if out_of_memory(error):
                        raise
                    message = message or reason(error)
                else:
                    return mode
        raise UsageError(
            f"engine sketch: {type(self.network).__name__} has no forward-mode derivative ({message}); use exact"
        )

    # -- shortcuts ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _find_shortcuts(self, probe: Tensor) -> dict[str, int]:
        """Modules whose output is linear in their parameters, row by row, and the axis of the rows.

        They add d (w x) to their output's derivative themselves. What single calls cannot show, such as a weight used
        once more by a function, the network's derivative does.
        """
        shared = {
            block.module: block for block in self._blocks if block.signs and _unhooked(self._modules[block.module])
        }
        calls = record_calls({name: self._modules[name] for name in shared}, self.network, probe)
        axes = {name: row_axis(self._modules[name], block, calls[name]) for name, block in shared.items()}
        candidates = {name: axis for name, axis in axes.items() if axis is not None}
        draws = self._first_draws()
        truth = self._along(probe, self._blocks, draws, self._mode)[1]

        def fits(shortcuts: dict[str, int]) -> bool:
            try:
                tangents = self._along(probe, self._blocks, draws, replace(self._mode, shortcuts=shortcuts))[1]
            except RuntimeError as error:
                if out_of_memory(error):
                    raise
                return False
            return close(tangents, truth)

        if fits(candidates):
            return candidates
        good: dict[str, int] = {}
        for name, axis in candidates.items():
            if fits(good | {name: axis}):
                good[name] = axis
        return good

    @contextmanager
    def _adding(self, blocks: Mapping[str, Block], steps: Draws, shortcuts: Mapping[str, int]) -> Iterator[None]:
        """Let modules with a shortcut add what a step along their rows makes of their output's derivative."""
        inside: set[str] = set()  # modules that are called by what is below

        def add(name: str, call: Call) -> Tensor | None:
            if name in inside:
                return None
            # Without derivatives of the input, whose part the output has already.
            inputs = tuple(value.detach() if isinstance(value, Tensor) else value for value in call.args)
            inside.add(name)
            product = functional_call(self._modules[name], blocks[name].signs, inputs)
            inside.remove(name)
            return AddDerivative.apply(call.output, along_axis(steps[name]["rows"], product, shortcuts[name]), product)

        with hooked({name: self._modules[name] for name in shortcuts if name in blocks}, leave=add):
            yield


@dataclass(frozen=True)
class _Mode:
    """A way to differentiate a network forward.

    Attributes:
        together: all directions in one pass, where every function allows it; else one after another.
        plain: attention from plain products; its fused kernels may have no forward-mode derivative.
        shortcuts: modules that add d (w x) to their output's derivative themselves, and the axis of their rows.
    """

    together: bool
    plain: bool
    shortcuts: Mapping[str, int] = field(default_factory=dict)

    @contextmanager
    def active(self) -> Iterator[None]:
        kernel = sdpa_kernel(SDPBackend.MATH) if self.plain else nullcontext()
        with warnings.catch_warnings(), plain_attention(), kernel:
            warnings.filterwarnings("ignore", message="There is a performance drop")
            yield


def _split_head(network: nn.Module, layers: list[Layer], probe: Tensor) -> tuple[nn.Linear | None, int, bool]:
    """Make the network return its head's input: the head, its layer's position, and whether its bias counts.

    None and -1 where the head is no Linear layer of its own, or its weight is not counted.
    """
    name = head.find_head(network, probe)
    places = [i for i, layer in enumerate(layers) if layer.name == name and "weight" in layer.parameters]
    if name is None or not places:
        return None, -1, False
    return head.without_head(network, name), places[0], "bias" in layers[places[0]].parameters


def _values(module: nn.Module, layer: Layer) -> dict[str, Tensor]:
    return {name: getattr(module, name).detach() for name in layer.parameters}


def _at(draws: Draws, j: int) -> Draws:
    return {module: {name: draw[j] for name, draw in own.items()} for module, own in draws.items()}


def _unhooked(module: nn.Module) -> bool:
    return not module._forward_hooks and not module._forward_pre_hooks
