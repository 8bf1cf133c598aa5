"""Layers behind which each channel goes its own way to the head: their class gradients follow from a single pass.

Where normalisation, activations, sums and pooling alone stand between a layer's output y and the head's input h,
dh_o / dy_r = 0 for channels o != r. For a target distribution q and copy i with probabilities p_i the gradient of y is
u_io M_i, with u_i = W^T (q - p_i), W the head's weight, and M the gradient of sum_o h_o, the same for all targets. With
T_io row o of a parameter's gradient under M, of copy i alone,

    ||block of g_q||^2 = 1/(N+1)^2 sum_o sum_ij u_io u_jo (T_io . T_jo).

No list of types: a module qualifies by what its output is to h on a probe.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from regrad.gradients.recorded.recording import Recording, Watched
from regrad.gradients.recorded.uses import outer_sum
from regrad.gradients.rules import Direct, Outer, find_rule
from regrad.network.copies import plain_attention
from regrad.network.hooks import Call, hooked, in_graph, pulled_back

AS_MUCH = 2  # products of a class's size: so many may the products of a layer's positions be, which are of all classes
FEW = 2  # targets that cost no more by a backward pass each
_CLOSE = 1e-5  # of what rounding makes different: a gate that mixes channels a little must show


def find_channelwise(network: nn.Module, head: str | None, probe: Tensor) -> set[str]:
    """Names of the modules with a rule whose output is, channel by channel, all that one of the head's inputs is of.

    Args:
        network: a private copy in eval mode.
        head: from :func:`regrad.network.head.find_head`.
        probe: inputs (B, channels, H, W).
    """
    if head is None:
        return set()
    width = int(network.get_submodule(head).weight.shape[1])  # type: ignore[index]
    features: list[Tensor] = []
    edges: dict[str, list[GradientEdge]] = {}

    def note(name: str, call: Call) -> Tensor | None:
        if name == head:
            features.append(call.input)
            return None
        output = call.output
        if not isinstance(output, Tensor) or output.dim() < 2 or output.shape[1] != width:
            return None
        output = in_graph(output)
        edges.setdefault(name, []).append(get_gradient_edge(output))
        return output

    modules = {name: module for name, module in network.named_modules() if name == head or find_rule(module)}
    with hooked(modules, leave=note), torch.enable_grad(), plain_attention():
        network(probe)
    once = {name: its[0] for name, its in edges.items() if len(its) == 1}
    h = features[0]
    if not once or not h.requires_grad:
        return set()
    signs = torch.linspace(-1, 1, width, dtype=h.dtype, device=h.device).sin() + 0.1
    ones, others = (
        pulled_back(each.expand_as(h), h, list(once.values()), retain_graph=True)
        for each in (torch.ones_like(signs), signs)
    )
    return {
        name
        for name, own, its in zip(once, ones, others, strict=True)
        if own is not None and its is not None and _alike(own * signs.view(-1, *[1] * (own.dim() - 2)), its)
    }


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether they are two roundings of one gradient; one of zero shows nothing."""
    return float((one - other).norm()) <= _CLOSE * float(other.norm()) > 0


def pays(shape: tuple[int, int, int, int], width: int, copies: int = 1) -> bool:
    """Whether an outer product of ``shape`` has a row for each of ``width`` channels and few enough positions.

    ``copies`` of an image are to come where one was seen.
    """
    groups, positions, d_in, d_out = shape
    return groups * d_out == width and positions * copies <= AS_MUCH * d_in


@dataclass
class Tail:
    """What a forward pass over ``images`` and their copies leaves behind for the closed form.

    Attributes:
        recording: of the channelwise modules.
        inputs: of each of them, in the order of its calls.
        features: the head's input h, in the graph.
    """

    recording: Recording
    watched: list[Watched] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)
    features: Tensor | None = None

    def note(self, watched: Watched, call: Call) -> Tensor:
        """Take down a call of a channelwise module; returns the output that goes on."""
        self.watched.append(watched)
        self.inputs.append(call.input.detach())
        return self.recording.note(watched, call)

    def squares(self, head: nn.Linear, p: Tensor, extra: Tensor, with_classes: bool) -> Iterator[tuple[str, Tensor]]:
        """||block of g_q||^2 of each of their parameters, float64 (B, T): of the classes if wanted, then of ``extra``.

        Args:
            head: the last layer.
            p: of every copy, float64 (B, N+1, C).
            extra: further target distributions, float64 (B, E, C).
        """
        images, number = p.shape[:2]
        assert self.features is not None
        gradients = pulled_back(
            torch.ones_like(self.features), self.features, list(self.recording.edges), retain_graph=True
        )
        for watched, x, gradient in zip(self.watched, self.inputs, gradients, strict=True):
            if gradient is None:
                continue
            alone = watched.rule(watched.module, x, images * number)
            for own, name in watched.parameters.items():
                (factor,) = self.recording.uses[name].factors
                products = row_products(factor, alone[own], gradient, images)
                targets = [None] * with_classes + [extra] * bool(extra.shape[1])
                yield name, torch.cat([squares_of_targets(products, head.weight, p, each) for each in targets], 1)

    def bytes_held(self, copies: int, element_size: int) -> int:
        """What that takes for one copy, where one copy of one image was recorded."""
        shapes = [
            factor.shape for use in self.recording.uses.values() for factor in use.factors if isinstance(factor, Outer)
        ]
        own = [
            groups * (n * (positions + d_out) if (n := positions * copies) < d_in else d_in * (d_out + positions))
            for groups, positions, d_in, d_out in shapes
        ]
        return max(own, default=0) * element_size


def row_products(factor: Outer | Direct, alone: Outer | Direct, gradient: Tensor, images: int) -> Tensor:
    """T_io . T_jo of one parameter, float64 (B, N+1, N+1, d).

    Args:
        factor: of all copies of an image together.
        alone: of each copy by itself.
        gradient: M, of the module's output.
        images: B.
    """
    if isinstance(alone, Direct):
        rows = alone.gradient(gradient).double().unflatten(0, (images, -1))  # (B, N+1, d)
        return rows[:, :, None] * rows[:, None]
    assert isinstance(factor, Outer)
    _, positions, d_in, _ = factor.shape
    return _by_positions(factor, gradient, images) if positions < d_in else _by_rows(alone, gradient, images)


def _by_rows(alone: Outer, gradient: Tensor, images: int) -> Tensor:
    """From T itself, of each copy; image by image, since those of all are as large as many activations."""
    rows, number = alone.rows(gradient), len(gradient) // images

    def of_image(image: int) -> Tensor:
        part = slice(image * number, (image + 1) * number)
        own = outer_sum(rows[part], alone.inputs(part)).flatten(1, 2)  # (N+1, d, d_in)
        return own.transpose(0, 1) @ own.permute(1, 2, 0)

    return torch.stack([of_image(image) for image in range(images)]).movedim(1, 3).double()


def _by_positions(factor: Outer, gradient: Tensor, images: int) -> Tensor:
    """T_io . T_jo = sum_st M_ios M_jot (A_is . A_jt), without T: there are few positions."""
    inputs = factor.inputs()
    rows = factor.rows(gradient).unflatten(2, (len(gradient) // images, -1))  # (B, G, N+1, positions, d / G)
    between = (inputs @ inputs.transpose(2, 3)).unflatten(3, rows.shape[2:4]).movedim(3, 2)  # (B, G, j, all, positions)
    summed = (between @ rows).unflatten(3, rows.shape[2:4])  # (B, G, j, i, positions, d / G)
    products = (summed * rows[:, :, None]).sum(4).double()
    return products.permute(0, 2, 3, 1, 4).flatten(3)


def squares_of_targets(products: Tensor, weight: Tensor, p: Tensor, targets: Tensor | None) -> Tensor:
    """||block of g_q||^2 of one parameter, float64 (B, T).

    Args:
        products: from :func:`row_products`.
        weight: W, (C, d).
        p: of every copy, float64 (B, N+1, C).
        targets: distributions q, float64 (B, T, C); None: each of the C classes.
    """
    # Products an image: one of all of them would round otherwise in other batches.
    weight, number = weight.double().expand(len(p), -1, -1), p.shape[1]
    if targets is not None:
        u = (targets @ weight)[:, :, None] - (p @ weight)[:, None]
        return torch.einsum("btio,btio->bt", u, torch.einsum("bijo,btjo->btio", products, u)) / number**2
    # u = (w_c - w_y) - (sum_k p_k w_k - w_y) with y the most probable class, whose own u is small where it is sure.
    predicted = p[:, 0].argmax(1)
    own = weight[0, predicted]
    copies = p @ weight - own[:, None]
    rows = products.sum(2)
    squares, mixed = rows.sum(1), (rows * copies).sum(1)
    constant = torch.einsum("bio,bijo,bjo->b", copies, products, copies)
    linear = own * squares + mixed
    all_classes = (weight.square() @ squares[..., None] - 2 * weight @ linear[..., None])[..., 0]
    all_classes += (own.square() * squares + 2 * own * mixed).sum(1, keepdim=True) + constant[:, None]
    return all_classes.scatter(1, predicted[:, None], constant[:, None]).clamp_min(0) / number**2
