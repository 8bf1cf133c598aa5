"""A convolution and the BatchNorm behind it differentiated as the one convolution that they are in eval mode.

y = s (W * x + b - mean) + t with s = w r, r = 1 / sqrt(var + eps). With D the gradient of y and M = sum_n D_n (x) x_n
over the positions n of all copies of an image, one row o a channel,

    dW_o = s_o M_o,  db = s sum D,  dt = sum D,  dw_o = (W'_o . M_o) / w_o + r_o (b_o - mean_o) dt_o,   W'_o = s_o W_o,

so neither the gradient between the two is formed nor the normalised values, of which there are as many as of y; M has
fewer entries where it is what norms are formed from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from regrad.gradients.norms import run_of
from regrad.gradients.recorded.recording import Recording, Watched
from regrad.gradients.recorded.uses import gram_is_cheaper
from regrad.gradients.rules import Direct, Outer, batch_norm, convolution
from regrad.network.copies import plain_attention
from regrad.network.fold import Affine, fold_pair, normed_convolutions
from regrad.network.hooks import Call, hooked

_NORM = "norm."  # before the own names of the BatchNorm's parameters
_LEAST = 1e-20  # of |s| and |w|: W' of less loses digits in float32


@dataclass(frozen=True, eq=False)
class MergedRule:
    """The rule of a convolution that a BatchNorm has been folded into, for the parameters that both had before."""

    affine: Affine

    def __call__(self, module: nn.Conv2d, x: Tensor, images: int) -> dict[str, Outer | Direct]:
        """One factor, of which ``weight`` and ``bias`` of the convolution and of the BatchNorm are derived."""
        outer = convolution(module, x, images)["weight"]
        assert isinstance(outer, Outer)
        folded = module.weight.detach().flatten(1)
        if outer.columns is not None:
            folded = folded[:, outer.columns().argsort()]
        scale, weight, shift = (
            values.to(x.dtype)
            for values in (self.affine.scale, self.affine.weight, self.affine.inverse * self.affine.offset)
        )

        def derived(products: Tensor, sums: Tensor) -> dict[str, Tensor]:
            runs = products.unflatten(2, (-1, run_of(products.shape[2])))
            return {
                "weight": (torch.linalg.vector_norm(runs, dim=3) * scale[:, None]).flatten(1),
                "bias": sums * scale,
                f"{_NORM}weight": (products * folded).sum(2) / weight + sums * shift,
                f"{_NORM}bias": sums,
            }

        return {"weight": replace(outer, derived=derived)}


def merge_norms(
    network: nn.Module, watched: Sequence[Watched], probe: Tensor, copies: int, targets: int
) -> tuple[list[Watched], Callable[[], None]]:
    """Fold watched BatchNorms into watched convolutions where M is formed and none of both is used otherwise.

    Args:
        network: a private copy; changed in place.
        watched: what has a rule that stood its check. Parameters that are not there must not count.
        probe: an input, (1, channels, H, W).
        copies, targets: how many an image will have.

    Returns:
        ``watched`` as it is then, and what undoes the change of the network.
    """
    names = {module: name for name, module in network.named_modules()}
    by_name = {names[item.module]: item for item in watched}
    recording = Recording(1)

    def note(name: str, call: Call) -> Tensor:
        return recording.note(by_name[name], call)

    modules = {name: item.module for name, item in by_name.items()}
    with hooked(modules, leave=note), torch.enable_grad(), plain_attention():
        logits = network(probe)

    taken = _taken(logits)

    def fits(item: Watched) -> bool:
        uses = [recording.uses.get(name) for name in item.parameters.values()]
        return all(use is not None and len(use.factors) == 1 for use in uses)

    def alone(item: Watched) -> bool:
        """Whether one operation alone takes the module's output: one that no gradient goes through does not show."""
        edge = recording.edges[recording.uses[item.parameters["weight"]].outputs[0]]
        return taken[edge.node, edge.output_nr] <= 1

    def pays(item: Watched) -> bool:
        name = item.parameters.get("weight", "")
        outer = [factor for factor in recording.uses[name].factors if isinstance(factor, Outer)] if name else []
        return bool(outer) and not gram_is_cheaper(outer, targets, copies)

    keep = {name for name in names.values() if name not in by_name}
    merged: dict[str, Watched] = {}
    undo: list[Callable[[], None]] = []
    with torch.no_grad(), plain_attention():
        pairs = normed_convolutions(network, keep, probe)
    for conv_name, norm_name in pairs:
        conv, norm = by_name[conv_name], by_name[norm_name]
        affine = Affine.of(conv.module, norm.module)
        least = min(float(values.abs().min()) for values in (affine.scale, affine.weight))
        rules = (conv.rule, norm.rule) == (convolution, batch_norm)
        if rules and fits(conv) and fits(norm) and pays(conv) and alone(conv) and least > _LEAST:
            parameters = {**conv.parameters, **{_NORM + own: name for own, name in norm.parameters.items()}}
            merged[conv_name] = replace(conv, rule=MergedRule(affine), parameters=parameters)
            undo.append(fold_pair(network, conv_name, norm_name))
            del by_name[norm_name]

    def undo_all() -> None:
        for restore in undo:
            restore()

    return [merged.get(name, item) for name, item in by_name.items()], undo_all


def _taken(result: Tensor) -> Counter[tuple[Node, int]]:
    """How many operations on the way to ``result`` take each output of each node of its graph."""
    taken: Counter[tuple[Node, int]] = Counter()
    waiting = [] if result.grad_fn is None else [result.grad_fn]
    seen = set(waiting)
    while waiting:
        for node, output in waiting.pop().next_functions:
            if node is not None:
                taken[node, output] += 1
                if node not in seen:
                    seen.add(node)
                    waiting.append(node)
    return taken
