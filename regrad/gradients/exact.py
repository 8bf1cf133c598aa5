"""Exact class-gradient norms of a batch: activations are differentiated once per class, parameters never.

For an image with copies x_0..x_N and a target distribution q (a class is its one-hot q),

    g_q = 1/(N+1) sum_i J_i^T (q - p_i),      ||a * g_q||^2 = sum_l a_l^2 ||g_q^(l)||^2.

The copies of an image are just more positions of a layer. With A its inputs and D_q its output gradients, one row a
position, the block of a layer y = A W^T is D_q^T A, and

    ||D_q^T A||^2 = sum (A A^T) * (D_q D_q^T)      (Gram form: A A^T is computed once for all classes), or directly.

Per class and image with n positions the Gram form costs n^2 (d_out + d_in / classes), the direct form n d_in d_out
multiplications; the cheaper one is chosen from these sizes alone. Layers that weigh nothing are run without a graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from regrad.gradients import head
from regrad.gradients.layers import ClassNorms, Layer, layer_parameters, plain_attention
from regrad.gradients.rules import Direct, Outer, find_rule


@dataclass
class _Use:
    """The calls of one parameter in one forward pass: how its gradient follows from the output gradients."""

    factors: list[Outer | Direct] = field(default_factory=list)
    arrived: list[Tensor | None] = field(default_factory=list)
    gram: Tensor | None = None


class ExactEngine:
    """Squared class-gradient norms by one backward pass for activations per target.

    Args:
        network: a private copy (:func:`regrad.gradients.layers.private_copy`); the engine puts hooks on it.
        layers: from :func:`regrad.gradients.layers.find_layers`.
        weights: a_l >= 0, (S, len(layers)); a layer with weight 0 in every row is left out.
        probe: one or more inputs (B, channels, H, W) on which the layer rules are checked against autograd.

    Attributes:
        bytes_per_input: memory one copy of one image takes, measured on the probe; fixes how many go at once.
    """

    def __init__(self, network: nn.Module, layers: list[Layer], weights: Tensor, probe: Tensor) -> None:
        self.network = network
        self.layers = layers
        self.weights = weights.double().reshape(-1, len(layers))
        self._modules = dict(network.named_modules(remove_duplicate=False))
        self._place: dict[int, int] = {}  # id of a counted parameter -> its layer's position
        self._parameters: dict[int, nn.Parameter] = {}
        for i, group in enumerate(layer_parameters(network, layers)):
            if float(self.weights[:, i].max()) > 0:
                self._place |= {id(parameter): i for parameter in group}
                self._parameters |= {id(parameter): parameter for parameter in group}
        self._uses: dict[int, _Use] = {}
        self._leaves: list[Tensor] = []
        self._head: nn.Module | None = None
        self._head_input: Tensor | None = None
        self._recording = self._checking = False
        self._copies_input: set[nn.Module] = set()
        self._plain = self._parameters_without_rule()
        self._watch()
        self._check(probe[:1])

    @property
    def per_image(self) -> bool:
        """Whether some counted parameter has no rule, so that images go through one at a time."""
        return bool(self._plain)

    def __call__(self, copies: Tensor, targets: Callable[[Tensor], Tensor] | None = None) -> ClassNorms:
        """Squared norms for ``copies`` (B, N+1, channels, H, W), whose first copy is the clean image.

        Args:
            copies: what the network receives.
            targets: maps clean log-probabilities (B, C) to further target distributions (B, E, C), appended to the
                classes.
        """
        if self.per_image and len(copies) > 1:
            parts = [self._norms(image[None], targets) for image in copies]
            return ClassNorms(
                torch.cat([part.squared for part in parts], 1), torch.cat([part.logits for part in parts])
            )
        return self._norms(copies, targets)

    def _norms(self, copies: Tensor, targets: Callable[[Tensor], Tensor] | None) -> ClassNorms:
        images, number = copies.shape[:2]
        logits = self._forward(copies.flatten(0, 1), images)
        exact_logits = logits.detach().double().reshape(images, number, -1)
        log_p = exact_logits.log_softmax(-1)
        p = log_p.exp()
        classes = p.shape[-1]
        extra = targets(log_p[:, 0]) if targets is not None else p.new_zeros(images, 0, classes)
        per_layer = p.new_zeros(len(self.layers), images, classes + extra.shape[1])
        if self._head is not None and self._head_input is not None:
            h = self._head_input.reshape(images, number, -1)
            squares = head.squared_norms(h, p, extra, bias=self._head_bias())
            per_layer[self._place[id(self._head.weight)]] += squares
        inputs = [*self._leaves, *self._plain.values()]
        if logits.requires_grad:
            self._finish_forward(classes + extra.shape[1])
            for t in range(per_layer.shape[-1]):
                cotangent = (_target(extra, t, p) - p) / number
                gradients = torch.autograd.grad(
                    logits, inputs, cotangent.flatten(0, 1).to(logits.dtype), retain_graph=True, allow_unused=True
                )
                for key, squares in self._squares().items():
                    per_layer[self._place[key], :, t] += squares
                for key, gradient in zip(self._plain, gradients[len(self._leaves) :], strict=True):
                    if gradient is not None:
                        per_layer[self._place[key], :, t] += gradient.double().square().sum()
        self._forget()
        return ClassNorms(torch.einsum("sl,lbt->sbt", self.weights.square(), per_layer), exact_logits)

    def _forward(self, x: Tensor, images: int) -> Tensor:
        self._forget()
        self._images, self._recording = images, True
        try:
            with torch.enable_grad(), plain_attention():
                return self.network(x)
        finally:
            self._recording = False

    def _forget(self) -> None:
        self._uses, self._leaves, self._head_input = {}, [], None

    # -- what is watched -------------------------------------------------------------------------------------------

    def _parameters_without_rule(self) -> dict[int, nn.Parameter]:
        """Counted parameters that autograd must differentiate image by image."""
        plain = dict(self._parameters)
        layer_of = {layer.name: layer for layer in self.layers}
        for name, module in self._modules.items():
            layer = layer_of.get(name)
            if layer is not None and layer.batch_major and layer.calls and _has_rule(module):
                for parameter in module.parameters(recurse=False):
                    plain.pop(id(parameter), None)
        return plain

    def _watch(self) -> None:
        """Put a hook on every module that uses a counted parameter by a rule."""
        for module in dict.fromkeys(self._modules.values()):
            own = {
                name: id(value)
                for name, value in module.named_parameters(recurse=False)
                if id(value) in self._parameters and id(value) not in self._plain
            }
            if own and _has_rule(module):
                module.register_forward_hook(self._hook(own))
        for parameter in self._plain.values():
            parameter.requires_grad_(True)

    def _hook(self, own: dict[str, int]) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            wanted = {name: key for name, key in own.items() if key not in self._plain}
            if not self._recording or not wanted:
                return None
            x = args[0].detach()
            if module is self._head:
                self._head_input = x.clone() if module in self._copies_input else x
                return None
            if not output.requires_grad:
                leaf = output.detach().requires_grad_(True)
                self._leaves.append(leaf)
                output = leaf.clone()  # the network may change it in place, which a leaf does not allow
            factors = self._factors(module, x.clone() if module in self._copies_input else x)
            slots = []
            for name, key in wanted.items():
                use = self._uses.setdefault(key, _Use())
                use.factors.append(factors[name])
                use.arrived.append(None)
                slots.append((use, len(use.arrived) - 1))

            def receive(gradient: Tensor) -> None:
                for use, slot in slots:
                    use.arrived[slot] = gradient

            output.register_hook(receive)
            return output

        return hook

    def _factors(self, module: nn.Module, x: Tensor) -> dict[str, Outer | Direct]:
        rule = find_rule(module)
        assert rule is not None
        if not self._checking:
            return rule(module, x, self._images)
        try:
            return rule(module, x, self._images)
        except RuntimeError:  # a subclass with other shapes: the check will leave its parameters to autograd
            return {name: Direct(lambda d: d.new_full((self._images, 1), math.nan)) for name in ("weight", "bias")}

    def _head_bias(self) -> bool:
        bias = getattr(self._head, "bias", None)
        return bias is not None and self._place.get(id(bias)) is not None

    # -- what a backward pass brought --------------------------------------------------------------------------------

    def _finish_forward(self, targets: int) -> None:
        """Form the class-independent Grams, and let go of the inputs they replace."""
        for use in self._uses.values():
            if not all(isinstance(factor, Outer) for factor in use.factors):
                continue
            inputs = torch.cat([factor.inputs for factor in use.factors if isinstance(factor, Outer)], dim=2)
            n, d_in = inputs.shape[2:]
            d_out = self._parameter_rows(use)
            if n * n * (d_out + d_in / targets) < n * d_in * d_out:
                use.gram = inputs @ inputs.transpose(2, 3)
                use.factors = [Outer(inputs[:, :, :0], factor.rows) for factor in use.factors]  # type: ignore[union-attr]

    def _parameter_rows(self, use: _Use) -> int:
        key = next(key for key, value in self._uses.items() if value is use)
        factor = use.factors[0]
        assert isinstance(factor, Outer)
        return self._parameters[key].numel() // (factor.inputs.shape[1] * factor.inputs.shape[3])

    def _squares(self) -> dict[int, Tensor]:
        """||block||^2 of every watched parameter for the gradients that have just arrived: float64 (B,)."""
        result = {}
        for key, use in self._uses.items():
            pairs = [(f, d) for f, d in zip(use.factors, use.arrived, strict=True) if d is not None]
            if not pairs:
                continue
            if use.gram is not None and len(pairs) == len(use.factors):
                rows = torch.cat([f.rows(d) for f, d in pairs if isinstance(f, Outer)], dim=2)
                result[key] = (use.gram * (rows @ rows.transpose(2, 3))).sum((1, 2, 3), dtype=torch.float64)
            else:
                result[key] = sum(_gradient(f, d) for f, d in pairs).double().square().sum(1)  # type: ignore[union-attr]
            use.arrived = [None] * len(use.arrived)
        return result

    # -- self-check --------------------------------------------------------------------------------------------------

    def _check(self, image: Tensor) -> None:
        """Compare every rule with autograd on one input; what disagrees is left to autograd from now on.

        This also finds what no rule can see: a weight used once more by a function, a module that changes its input.
        """
        for parameter in self._parameters.values():
            parameter.requires_grad_(True)
        self._checking = True
        saved: dict[int, int] = {}
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: _note(saved, tensor), lambda tensor: tensor):
            logits = self._forward(image, 1)
        cotangent = torch.linspace(-1, 1, logits.shape[1], dtype=logits.dtype, device=logits.device)[None]
        parameters = list(self._parameters.values())
        truth = torch.autograd.grad(logits, parameters, cotangent, retain_graph=True, allow_unused=True)
        arrived = sum(_size(d) for use in self._uses.values() for d in use.arrived if d is not None)
        inputs = sum(_size(f.inputs) for use in self._uses.values() for f in use.factors if isinstance(f, Outer))
        self.bytes_per_input = sum(saved.values()) + inputs + 2 * arrived + _size(image)
        mine = self._squares()
        self._forget()
        self._checking = False
        for parameter, gradient in zip(parameters, truth, strict=True):
            if id(parameter) in self._plain:
                continue
            parameter.requires_grad_(False)
            wanted = 0.0 if gradient is None else float(gradient.double().square().sum())
            got = float(mine.get(id(parameter), torch.zeros(1)).sum())
            if not abs(got - wanted) <= 1e-3 * max(wanted, got, 1e-30):
                parameter.requires_grad_(True)
                self._plain[id(parameter)] = parameter


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _note(saved: dict[int, int], tensor: Tensor) -> Tensor:
    saved[tensor.data_ptr()] = _size(tensor)
    return tensor


def _has_rule(module: nn.Module) -> bool:
    # A forward hook of the network's own may change the output, so that the rule's output gradient is not the layer's.
    return find_rule(module) is not None and not module._forward_hooks


def _gradient(factor: Outer | Direct, d: Tensor) -> Tensor:
    """The parameter's gradient, one row an image."""
    if isinstance(factor, Direct):
        return factor.gradient(d)
    return (factor.rows(d).transpose(2, 3) @ factor.inputs).flatten(1)


def _target(extra: Tensor, t: int, p: Tensor) -> Tensor:
    """Target distribution t of every image, broadcast over copies: (B, 1, C) or (C,)."""
    classes = p.shape[-1]
    if t >= classes:
        return extra[:, t - classes, None, :]
    one_hot = p.new_zeros(classes)
    one_hot[t] = 1
    return one_hot
